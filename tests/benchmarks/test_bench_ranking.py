"""The measurements of ranking refuse what would be no comparison."""

from reidruntime.threads import default_threads

from tests.standins.benchmark_runs import run_benchmarks


def test_ranking_is_not_compared_with_other_numbers_of_threads() -> None:
    """Where OMP_NUM_THREADS is not the number of CPUs, the run fails and says what to set."""
    arguments = "benchmarks/bench_ranking.py", "--quick", "-k", "distance_matrix"
    printed = run_benchmarks(*arguments, status=1, OMP_NUM_THREADS=str(default_threads() + 1))
    assert "unset that, or choose as many CPUs with taskset" in printed
