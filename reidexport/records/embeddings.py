"""Records about embeddings: what was embedded, and what was found among them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Metric

from reidexport.records.base import Record


class EmbeddingRecord(Record):
    """What ``embed`` did; see :class:`reidexport.embed.local.EmbeddingRun`."""

    command: ClassVar[str] = "reidexport embed ARTIFACT PATH… -o FILE --json FILE"

    kind: Literal["embed"] = "embed"
    artifact: str
    output: str
    num_embedded: int
    num_new: int
    num_resumed: int
    skipped: tuple[tuple[str, str], ...]
    seconds: float


class ClusterEmbeddingRecord(Record):
    """What ``embed --ray`` did; see :class:`reidexport.embed.cluster.run.ClusterRun`."""

    command: ClassVar[str] = "reidexport embed ARTIFACT PATH… -o FOLDER --ray --json FILE"

    kind: Literal["embed-ray"] = "embed-ray"
    artifact: str
    output: str
    num_shards: int
    num_resumed_shards: int
    num_embedded: int
    num_new: int
    num_bad: int
    sessions: tuple[str, ...]
    seconds: float
    total_seconds: float


@dataclass(frozen=True)
class SeenImage:
    """An image as a gallery knows it; ``pid``, ``camid`` (from 0) and ``time`` are None where they are not known."""

    path: str
    pid: int | None
    camid: int | None
    time: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hit(SeenImage):
    """A gallery image that was found: its rank from 1, its row in the gallery, its distance to the query."""

    rank: int
    row: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class AnsweredQuery(SeenImage):
    """A query and what was found for it, nearest first."""

    hits: tuple[Hit, ...]


class SearchRecord(Record):
    """What was found in a gallery, for each query."""

    command: ClassVar[str] = "reidexport search GALLERY QUERY… --json FILE"

    kind: Literal["search"] = "search"
    gallery: str
    manifest_sha256: str | None
    metric: Metric
    queries: tuple[AnsweredQuery, ...]
