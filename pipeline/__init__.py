"""From addresses to Parquet: a library that reads no params.yaml, parses no arguments and prints nothing."""
