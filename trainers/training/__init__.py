"""What trains a model: data, loop, objectives, optimizer, checkpoints, run folders."""
