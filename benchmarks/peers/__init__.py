"""What the benchmarks compare with, called as its own documentation shows."""
