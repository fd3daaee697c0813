"""NumPy's threads, which searches take and give back."""

from reidgallery.scan.blas_threads import single_threaded_blas
from threadpoolctl import threadpool_info


def test_numpys_threads_are_restored_by_the_last_search() -> None:
    """Searches that overlap leave NumPy's products as many threads as they had."""
    before = [library["num_threads"] for library in threadpool_info()]
    entered = [single_threaded_blas() for _ in range(2)]
    for search in entered:
        search.__enter__()
    assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    entered[0].__exit__(None, None, None)
    assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
    entered[1].__exit__(None, None, None)
    assert [library["num_threads"] for library in threadpool_info()] == before
