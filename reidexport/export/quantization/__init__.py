"""INT8: calibration images in, ranges, a network of QuantizeLinear and DequantizeLinear out."""
