"""How the benchmarks measure: turns, comparisons, limits, results."""
