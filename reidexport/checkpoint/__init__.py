"""From a file of weights to a model and what is known of it, without running anything from the file."""
