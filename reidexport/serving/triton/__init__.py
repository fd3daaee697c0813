"""Triton Inference Server: model repositories for it, and one that runs on this machine."""
