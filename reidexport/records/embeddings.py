"""Records about embeddings: what was embedded, and what was found among them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from reidruntime.artifact.manifest import Metric

from reidexport.records.base import Record, RecordPart


class GalleryChange(RecordPart):
    """What became of rows that were to be added to a gallery.

    Attributes:
        num_added: rows, those that replaced others included.
        num_replaced: rows that were there, of paths that were added.
        num_duplicates_skipped: new rows that were left out because their paths were there.
        num_forgotten_skipped: new rows that were left out because their person or path had been forgotten.
        num_rows: rows that the gallery has now.
    """

    num_added: int
    num_replaced: int
    num_duplicates_skipped: int
    num_forgotten_skipped: int
    num_rows: int


class EmbeddingRun(Record):
    """What a run of ``embed`` did.

    Attributes:
        artifact: its path, as it was given; empty where only its session is known.
        output: the file or folder.
        num_shards: what the run was divided into.
        num_embedded: embeddings in the output.
        num_new: those of them that this run made; the others are of the interrupted run.
        num_resumed: images, bad ones included, that the interrupted run had finished.
        skipped: path and reason of every bad image.
        sessions: what ran the network; on a cluster, each behind the address of its node.
        seconds: from when the first session was ready to the end.
        total_seconds: with planning; on a cluster, with starting Ray and opening the sessions.
        change: of the gallery, where the output is one.
        notes: what a table of labels left open.
    """

    command: ClassVar[str] = "reidexport embed ARTIFACT PATH… -o OUTPUT --json FILE"

    kind: Literal["embed"] = "embed"
    artifact: str = ""
    output: Path
    num_shards: int
    num_embedded: int
    num_new: int
    num_resumed: int
    skipped: tuple[tuple[str, str], ...]
    sessions: tuple[str, ...]
    seconds: float
    total_seconds: float
    change: GalleryChange | None = None
    notes: tuple[str, ...] = ()


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
