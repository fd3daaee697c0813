"""One module for each project whose checkpoints are read."""
