"""The collection that a gallery is in Milvus: its fields, its facts, and the index that searches it."""

from typing import Any, Literal, get_args

from reidruntime.errors import InputError

from reidgallery.milvus.client import Client, is_file
from reidgallery.rows import Metric

IndexKind = Literal["exact", "approximate", "gpu-exact", "gpu-approximate"]

MAX_PATH_BYTES = 65_535
LABEL_FIELDS = ["pid", "camid", "time", "path"]
_METRICS: dict[Metric, str] = {"cosine": "COSINE", "euclidean": "L2"}
_METRIC, _ARTIFACT = "reidruntime.metric", "reidruntime.manifest_sha256"  # properties of the collection
_VECTOR_INDEX, _PATH_INDEX = "embedding_idx", "path_idx"
_INDEXES: dict[IndexKind, tuple[str, dict[str, int]]] = {
    "exact": ("FLAT", {}),
    "approximate": ("HNSW", {"M": 16, "efConstruction": 200}),
    "gpu-exact": ("GPU_BRUTE_FORCE", {}),
    "gpu-approximate": ("GPU_CAGRA", {"intermediate_graph_degree": 64, "graph_degree": 32}),
}
_BREADTH = 128  # how many candidates an approximate search keeps, at least


def check_index(address: str, index: IndexKind) -> None:
    """Raise InputError for an index that does not exist, or cannot be kept in a file."""
    if index not in _INDEXES:
        raise InputError(f"The index must be one of {', '.join(get_args(IndexKind))}, got {index!r}.")
    # milvus-lite takes their names without a word, and then has no index.
    if index.startswith("gpu") and is_file(address):
        raise InputError(f"{address}: milvus-lite has no GPU: a {index} index needs a server that has one.")


def create_collection(
    client: Client, name: str, dim: int, metric: Metric, manifest_sha256: str | None
) -> None:
    """Make an empty collection, searched exactly."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
    for label in ("pid", "camid", "time"):
        schema.add_field(label, DataType.INT64)
    schema.add_field("path", DataType.VARCHAR, max_length=MAX_PATH_BYTES)
    client.create_collection(
        name,
        schema=schema,
        index_params=_index_params(client, "exact", metric, with_paths=True),
        consistency_level="Strong",
        properties={_METRIC: metric, _ARTIFACT: manifest_sha256 or ""},
    )


def read_facts(client: Client, name: str) -> tuple[int, Metric, str | None, IndexKind | None]:
    """The dimension, metric, artifact and index of a collection; no index where a killed program left it without.

    Raises:
        InputError: it is not a gallery, or one of an earlier version.
    """
    found = client.describe_collection(name)
    index_type = (client.describe_index(name, _VECTOR_INDEX) or {}).get("index_type")
    fields = {field["name"]: field["params"] for field in found["fields"]}
    metric = found["properties"].get(_METRIC)
    if "embedding" not in fields or metric not in _METRICS:
        raise InputError(f"{client.address}: the collection {name} is not a gallery of reidgallery.")
    if "time" not in fields:
        raise InputError(
            f"{client.address}: the collection {name} is of an earlier version, which kept no times. Store the "
            "embeddings in another one."
        )
    index = next((kind for kind, (text, _) in _INDEXES.items() if text == index_type), None)
    manifest_sha256 = found["properties"].get(_ARTIFACT) or None
    return int(fields["embedding"]["dim"]), metric, manifest_sha256, index


def load_collection(client: Client, name: str, index: IndexKind, metric: Metric) -> None:
    """Make a collection ready to be searched."""
    try:
        client.load_collection(name)
    except InputError:
        if not is_file(client.address):
            raise
        # milvus-lite writes index files in place, so a killed program leaves one torn: build them from the rows.
        for index_name in (_VECTOR_INDEX, _PATH_INDEX):
            _drop_index(client, name, index_name)
        client.create_index(name, _index_params(client, index, metric, with_paths=True))
        client.load_collection(name)


def replace_index(client: Client, name: str, index: IndexKind, metric: Metric) -> None:
    """Build another index over all rows, in place of the present one, and wait for it."""
    client.flush(name)
    client.release_collection(name)
    _drop_index(client, name, _VECTOR_INDEX)
    client.create_index(name, _index_params(client, index, metric))
    client.load_collection(name)


def _drop_index(client: Client, name: str, index_name: str) -> None:
    if client.describe_index(name, index_name):
        client.drop_index(name, index_name)


def search_params(index: IndexKind, k: int) -> dict[str, dict[str, int]]:
    """How broadly to search for k rows."""
    breadth = max(_BREADTH, 2 * k)
    if index == "approximate":
        return {"params": {"ef": breadth}}
    if index == "gpu-approximate":
        return {"params": {"itopk_size": 1 << (breadth - 1).bit_length()}}  # a power of two
    return {}


def _index_params(client: Client, index: IndexKind, metric: Metric, with_paths: bool = False) -> Any:
    index_type, params = _INDEXES[index]
    indexes = client.prepare_index_params()
    indexes.add_index(
        "embedding",
        index_name=_VECTOR_INDEX,
        index_type=index_type,
        metric_type=_METRICS[metric],
        params=params,
    )
    if with_paths:
        indexes.add_index("path", index_name=_PATH_INDEX, index_type="INVERTED")
    return indexes
