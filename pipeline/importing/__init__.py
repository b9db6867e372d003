"""A graph of somebody's own, in the files that they have, brought into the form that `ingest` reads."""
