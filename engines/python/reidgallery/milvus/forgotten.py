"""The list of the forgotten of a gallery in Milvus: a collection beside the gallery's, made when it is needed."""

import hashlib
from collections.abc import Iterator
from typing import Any

from reidgallery.input import NOBODY_FORGOTTEN, UNLABELED, Forgotten
from reidgallery.milvus.client import Client
from reidgallery.milvus.collection import MAX_PATH_BYTES
from reidgallery.milvus.rows import check_paths

_SUFFIX = "_forgotten"
_AT_ONCE = 1000
_NO_VECTOR = [0.0, 0.0]  # Milvus has no collection without vectors


def read_forgotten(client: Client, gallery: str) -> Forgotten:
    """The list of the gallery of this name."""
    name = gallery + _SUFFIX
    if not client.has_collection(name):
        return NOBODY_FORGOTTEN
    client.load_collection(name)
    pids, paths, pid_paths, last = set[int](), set[str](), set[tuple[int, str]](), ""
    while found := client.query(name, f'key > "{last}"', ["key", "pid", "path"], limit=_AT_ONCE):
        last = max(record["key"] for record in found)
        for record in found:
            pid, path = int(record["pid"]), record["path"]
            if pid == UNLABELED:
                paths.add(path)
            elif path:
                pid_paths.add((pid, path))
            else:
                pids.add(pid)
    return Forgotten(frozenset(pids), frozenset(paths), frozenset(pid_paths))


def add_forgotten(client: Client, gallery: str, added: Forgotten) -> None:
    """Put persons and paths on the list; raises InputError for a path that Milvus cannot store."""
    check_paths(added.all_paths)
    name = gallery + _SUFFIX
    if not client.has_collection(name):
        _create(client, name)
    records = list(_records(added))
    for start in range(0, len(records), _AT_ONCE):
        client.upsert(name, records[start : start + _AT_ONCE])
    client.flush(name)


def remove_forgotten(client: Client, gallery: str, listed: Forgotten) -> None:
    """Take persons, with their images, and paths off the list."""
    name, before = gallery + _SUFFIX, read_forgotten(client, gallery)
    kept = {record["key"] for record in _records(before - listed)}
    if keys := [record["key"] for record in _records(before) if record["key"] not in kept]:
        for start in range(0, len(keys), _AT_ONCE):
            client.delete(name, ids=keys[start : start + _AT_ONCE])
        client.flush(name)


def _records(listed: Forgotten) -> Iterator[dict[str, Any]]:
    for pid in sorted(listed.pids):
        yield {"key": _key(f"pid {pid}"), "pid": pid, "path": "", "unused": _NO_VECTOR}
    for path in sorted(listed.paths):
        yield {"key": _key(f"path {path}"), "pid": UNLABELED, "path": path, "unused": _NO_VECTOR}
    for pid, path in sorted(listed.pid_paths):
        yield {"key": _key(f"pid {pid} path {path}"), "pid": pid, "path": path, "unused": _NO_VECTOR}


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _create(client: Client, name: str) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("pid", DataType.INT64)
    schema.add_field("path", DataType.VARCHAR, max_length=MAX_PATH_BYTES)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=len(_NO_VECTOR))
    indexes = client.prepare_index_params()
    indexes.add_index("unused", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")
