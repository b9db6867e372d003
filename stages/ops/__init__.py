"""Commands beside the pipeline: share, unlock, verify, summary, compare."""
