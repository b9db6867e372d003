"""A knowledge graph: its files, splits, audit, filter index, names and page."""
