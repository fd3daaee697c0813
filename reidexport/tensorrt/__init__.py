"""From an ONNX file or a checkpoint to a TensorRT engine whose precision is proved."""
