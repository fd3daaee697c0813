"""From a checkpoint to one ONNX file: the inference graph, folded; FP32, FP16 or INT8."""
