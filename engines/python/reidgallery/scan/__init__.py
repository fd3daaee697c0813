"""Exact top-k: the candidates that a cheap scan with a proved bound finds, scored again in float32."""
