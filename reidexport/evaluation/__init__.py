"""Whether a file answers as its reference does: scores, verification, parity, speed."""
