"""Files with pinned addresses, fetched once and checked."""
