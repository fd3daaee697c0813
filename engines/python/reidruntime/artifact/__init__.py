"""What an artifact says of itself, and whether it fits: manifests, ONNX metadata, checks before anything is loaded."""
