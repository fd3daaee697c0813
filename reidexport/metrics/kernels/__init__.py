"""The loops of the metrics, compiled by numba."""
