"""One encoder family a file."""
