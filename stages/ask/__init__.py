"""The page on which trained runs are asked: `make ask`. Reads and answers, writes nothing, asks no network."""
