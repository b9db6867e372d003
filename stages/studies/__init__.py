"""The papers' experiments, each with one command."""
