"""What an artifact states about itself, and whether it fits: manifests, ONNX metadata, checks before loading."""
