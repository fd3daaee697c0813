"""What other servers need to run an artifact: DeepStream, Triton."""
