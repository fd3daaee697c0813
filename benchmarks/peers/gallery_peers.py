"""What a search is compared with: each opener returns a function from queries to the numbers of their nearest rows.

All compute inner products in float32, and answer in the memory of the CPU. Without its peer, a test is skipped.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.peers.peers import num_threads

Features = npt.NDArray[np.float32]
Found = npt.NDArray[np.integer]
Search = Callable[[Features], Found]


def faiss_flat(rows: Features, k: int) -> Search:
    """``IndexFlatIP``."""
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda queries: index.search(queries, k)[1]


def faiss_knn(rows: Features, k: int) -> Search:
    """What ``IndexFlatIP`` calls, on rows that it needs no copy of."""
    faiss = pytest.importorskip("faiss")
    return lambda queries: faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)[1]


def usearch_exact(rows: Features, k: int) -> Search:
    """Usearch's exact search."""
    usearch = pytest.importorskip("usearch.index")
    metric, threads = usearch.MetricKind.IP, num_threads()
    return lambda queries: usearch.search(rows, queries, k, metric, exact=True, threads=threads).keys


def gpu_searches(rows: Features, k: int) -> tuple[dict[str, Search], list[str]]:
    """Those of faiss and cuVS on the first GPU, by name; and which are not installed, and why they are not peers."""
    found: dict[str, Search] = {}
    missing = []
    if not find_spec("faiss"):
        missing.append("faiss-gpu")
    else:
        import faiss

        if faiss.get_num_gpus():
            flat = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), rows.shape[1])
            flat.add(rows)
            found["faiss-gpu"] = lambda queries: flat.search(queries, k)[1]
        else:
            missing.append("faiss-gpu (this faiss is for CPUs)")
    if not find_spec("cuvs"):
        return found, [*missing, "cuVS"]
    import torch
    from cuvs.neighbors import brute_force

    kept = torch.from_numpy(rows).cuda()  # the index does not hold what it was built from
    torch.cuda.synchronize()  # cuVS works on a stream of its own
    index = brute_force.build(kept, metric="inner_product")

    def search(queries: Features) -> Found:
        q_tensor = torch.from_numpy(queries).to(kept.device)
        torch.cuda.synchronize()
        distances, neighbors = brute_force.search(index, q_tensor, k)
        distances.copy_to_host()
        return neighbors.copy_to_host()

    return found | {"cuVS brute force": search}, missing
