"""Which rows a query may find, as Milvus' conditions."""

from reidgallery.input import JUNK_PID, Queries, SearchFilter


def queries_by_condition(queries: Queries, filter: SearchFilter) -> dict[str, list[int]]:
    """The numbers of the queries that share a condition, so that they can be searched for together."""
    shared = [f"pid != {JUNK_PID}"] if filter.exclude_junk else []
    if filter.among_camids is not None:
        shared.append(f"camid in {sorted(map(int, filter.among_camids))}")
    if filter.since is not None:
        shared.append(f"time >= {int(filter.since)}")
    if filter.until is not None:
        shared.append(f"time <= {int(filter.until)}")
    numbers: dict[str, list[int]] = {}
    for query, (pid, camid) in enumerate(zip(queries.pids.tolist(), queries.camids.tolist(), strict=True)):
        own = []
        if filter.other_cameras:
            own = [f"camid != {camid}"]
        elif filter.exclude_junk:
            own = [f"(pid != {pid} or camid != {camid})"]
        numbers.setdefault(" and ".join(shared + own), []).append(query)
    return numbers
