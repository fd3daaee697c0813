"""``reidexport embed``: image files in, one file of embeddings out; with ``--ray`` a folder of files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reidruntime import Session
from typer import Argument, Option
from typer.core import TyperCommand

from reidexport.cli.artifact_options import ArtifactArgument, BatchOption, ForeignOptions, RunOptions
from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import JsonOption, log
from reidexport.data.image_paths import find_images
from reidexport.embed.cluster.run import ClusterRun, ClusterRunOptions, embed_on_ray
from reidexport.embed.local import EmbeddingRun, embed_to_file
from reidexport.embed.plan import ERRORS_NAME, Columns, read_errors
from reidexport.errors import InputError
from reidexport.progress import progress_bar
from reidexport.records.embeddings import ClusterEmbeddingRecord, EmbeddingRecord
from reidexport.records.reading import write_record

_on_ray = partial(Option, rich_help_panel="On a Ray cluster")
_ADDRESS = re.compile(r"local|auto|ray://.+|[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+")
_MAX_LISTED = 20


class EmbedCommand(TyperCommand):
    """``embed``, whose option ``--ray`` may stand without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line."""
        return super().parse_args(ctx, with_address(args))


def with_address(words: list[str]) -> list[str]:
    """The same words, with ``--ray=local`` for a ``--ray`` whose next word does not look like an address."""
    return [
        "--ray=local" if word == "--ray" and not _ADDRESS.fullmatch(following) else word
        for word, following in zip(words, [*words[1:], ""], strict=True)
    ]


@dataclass(frozen=True)
class EmbeddingOptions:
    """How a run treats bad images, interruptions and batches."""

    on_error: Annotated[
        Literal["stop", "skip"] | None,
        Option(
            help="At an image that cannot be read: stop (the default), or skip it, name it, and exit with status 1 "
            "(always so with --ray)."
        ),
    ] = None
    resume: Annotated[bool, Option("--resume", help="Continue the interrupted run of OUTPUT.")] = False
    batch: BatchOption = None


@dataclass(frozen=True)
class ClusterOptions:
    """Embedding on a Ray cluster."""

    ray: Annotated[
        str | None,
        _on_ray(
            metavar="[ADDRESS]",
            help="Embed on a Ray cluster: HOST:PORT or auto; without an address, one on this machine.",
        ),
    ] = None
    actors: Annotated[
        int | None,
        _on_ray(
            min=1,
            help="Sessions of --threads each; as many as there are GPUs, or room for on CPUs, if left out.",
        ),
    ] = None
    shard_size: Annotated[int, _on_ray(min=1, help="Images per file of the output.")] = 1024
    columns: Annotated[
        str,
        _on_ray(
            metavar="IMAGE,NAME",
            help="Columns of Parquet files: the images' bytes, and their names; dots lead into structs.",
        ),
    ] = "image,path"


@with_option_groups
def embed(
    artifact: ArtifactArgument,
    images: Annotated[
        list[str],
        Argument(
            metavar="PATH...",
            help="Files, folders (searched deeply) and patterns; with --ray also *.tar, *.parquet and URLs.",
        ),
    ],
    output: Annotated[
        Path,
        Option(
            "--output", "-o", help="The file to write: *.npz, *.parquet or *.gallery; with --ray a folder."
        ),
    ],
    *,
    embedding: EmbeddingOptions,
    run: RunOptions,
    cluster: ClusterOptions,
    foreign: ForeignOptions,
    json_file: JsonOption = None,
) -> None:
    """Embed images into a .npz or Parquet file, or into a gallery for reidexport search.

    Exit status: 0 every image embedded, 1 some skipped, 2 bad input, 3 something not installed, 130
    interrupted. After an interruption the finished part is in OUTPUT.partial, with --ray in OUTPUT, and --resume
    continues from there.
    """
    if cluster.ray is None:
        paths = find_images(images)
        with run.open(artifact, foreign.manifest(artifact)) as session:
            embedded = _embed_here(session, paths, output, embedding)
        _report(embedded, artifact, json_file)
        return
    if embedding.on_error == "stop":
        raise InputError("--ray lists bad images in a table and continues: leave out --on-error stop.")
    options = ClusterRunOptions(
        address=cluster.ray,
        actors=cluster.actors,
        batch_size=embedding.batch,
        shard_size=cluster.shard_size,
        columns=_parse_columns(cluster.columns),
        **asdict(run),
    )
    with _interruptible(output):
        done = embed_on_ray(
            artifact,
            images,
            output,
            options,
            manifest=foreign.manifest(artifact),
            resume=embedding.resume,
            progress_bar=progress_bar,
        )
    _report_cluster_run(done, artifact, json_file)


def _embed_here(session: Session, paths: list[str], output: Path, options: EmbeddingOptions) -> EmbeddingRun:
    log(session.description)
    with _interruptible(Path(f"{output}.partial")), progress_bar("embedding", len(paths)) as progress:
        return embed_to_file(
            session,
            paths,
            output,
            on_error=options.on_error or "stop",
            resume=options.resume,
            batch_size=options.batch,
            progress=progress,
        )


@contextmanager
def _interruptible(kept: Path) -> Iterator[None]:
    """Ctrl-C ends with status 130, and a message that names where the finished part is."""
    try:
        yield
    except KeyboardInterrupt:
        log(f"Interrupted. What is finished is in {kept}: continue with --resume.")
        raise typer.Exit(130) from None


def _parse_columns(text: str) -> Columns:
    names = text.split(",")
    if len(names) != 2 or not all(names):
        raise InputError(f"--columns {text!r}: expected two names, for example image,path.")
    return Columns(*names)


def _report(run: EmbeddingRun, artifact: Path, json_file: Path | None) -> None:
    if run.num_resumed:
        log(f"{run.num_resumed} images were finished by the interrupted run.")
    for _, reason in run.skipped:
        log(f"skipped {reason}")
    _conclude(run, f"{run.num_embedded} embeddings", len(run.skipped), artifact, json_file)


def _report_cluster_run(run: ClusterRun, artifact: Path, json_file: Path | None) -> None:
    for description in run.sessions:
        log(description)
    if run.num_resumed_shards:
        log(f"{run.num_resumed_shards} of {run.num_shards} shards were finished before.")
    for _, reason in islice(read_errors(run.output), _MAX_LISTED):
        log(f"skipped {reason}")
    if run.num_bad > _MAX_LISTED:
        log(f"... and {run.num_bad - _MAX_LISTED} more: {run.output / ERRORS_NAME}")
    embedded = f"{run.num_embedded} embeddings in {run.num_shards} parts"
    _conclude(run, embedded, run.num_bad, artifact, json_file)


def _conclude(
    run: EmbeddingRun | ClusterRun, embedded: str, num_skipped: int, artifact: Path, json_file: Path | None
) -> None:
    record = EmbeddingRecord if isinstance(run, EmbeddingRun) else ClusterEmbeddingRecord
    write_record(json_file, record(**vars(run) | {"artifact": str(artifact), "output": str(run.output)}))
    speed = run.num_new / max(run.seconds, 1e-9)
    typer.echo(f"{run.output}: {embedded}, {num_skipped} skipped, {speed:.0f} images/s")
    if num_skipped:
        raise typer.Exit(1)
