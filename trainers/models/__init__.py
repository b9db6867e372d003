"""Models, one per file, each readable from top to bottom. trainers/about.py says what a file must hold."""
