"""Which rows a query may find, in Milvus' words."""

from collections.abc import Collection

from reidgallery.input import JUNK_PID
from reidgallery.rows import Ints


def queries_of_conditions(
    q_pids: Ints,
    q_camids: Ints,
    *,
    other_cameras: bool,
    exclude_junk: bool,
    among_camids: Collection[int] | None,
    since: int | None,
    until: int | None,
) -> dict[str, list[int]]:
    """The numbers of the queries that share a condition, so that they can be asked together.

    The arguments are those of ``MilvusGallery.search``; q_pids and q_camids are int64, (num_query,).
    """
    shared = [f"pid != {JUNK_PID}"] if exclude_junk else []
    if among_camids is not None:
        shared.append(f"camid in {sorted(map(int, among_camids))}")
    if since is not None:
        shared.append(f"time >= {int(since)}")
    if until is not None:
        shared.append(f"time <= {int(until)}")
    asking: dict[str, list[int]] = {}
    for query, (pid, camid) in enumerate(zip(q_pids.tolist(), q_camids.tolist(), strict=True)):
        own = []
        if other_cameras:
            own = [f"camid != {camid}"]
        elif exclude_junk:
            own = [f"(pid != {pid} or camid != {camid})"]
        asking.setdefault(" and ".join(shared + own), []).append(query)
    return asking
