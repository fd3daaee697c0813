"""``reidexport embed``: image files in, one file of embeddings out; with ``--ray`` a folder of files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reidruntime import Session
from typer.core import TyperCommand

from reidexport.cli.artifact_options import ArtifactArgument, ForeignOptions, RunOptions
from reidexport.cli.json_file import JsonOption, write_json
from reidexport.cli.option_groups import with_option_groups
from reidexport.data.image_paths import find_images
from reidexport.embed.cluster.run import ClusterRun, ClusterRunOptions, embed_on_ray
from reidexport.embed.local import EmbeddingRun, embed_to_file
from reidexport.embed.plan import ERRORS_NAME, Columns, read_errors
from reidexport.errors import InputError
from reidexport.progress import progress_bar

_RAY = "On a Ray cluster"
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
        typer.Option(
            help="At an image that cannot be read: stop (the default), or skip it, name it, and exit with status 1 "
            "(always so with --ray)."
        ),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run of OUTPUT.")] = False
    batch: Annotated[int | None, typer.Option(min=1, help="Images per run of the network.")] = None


@dataclass(frozen=True)
class ClusterOptions:
    """Embedding on a Ray cluster."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Embed on a Ray cluster: HOST:PORT or auto; without an address, one on this machine.",
            rich_help_panel=_RAY,
        ),
    ] = None
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Sessions of --threads each; as many as there are GPUs, or room for on CPUs, if left out.",
            rich_help_panel=_RAY,
        ),
    ] = None
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images per file of the output.", rich_help_panel=_RAY)
    ] = 1024
    columns: Annotated[
        str,
        typer.Option(
            metavar="IMAGE,NAME",
            help="Columns of Parquet files: the images' bytes, and their names; dots lead into structs.",
            rich_help_panel=_RAY,
        ),
    ] = "image,path"


@with_option_groups
def embed(
    artifact: ArtifactArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files, folders (searched deeply) and patterns; with --ray also *.tar, *.parquet and URLs.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
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
            typer.echo(session.description, err=True)
            embedded = _embed_here(session, paths, output, embedding)
        _report(embedded, json_file, artifact)
        return
    if embedding.on_error == "stop":
        raise InputError("--ray lists bad images in a table and continues: leave out --on-error stop.")
    manifest = foreign.manifest(artifact)
    options = ClusterRunOptions(
        address=cluster.ray,
        actors=cluster.actors,
        threads=run.threads,
        backend=run.backend,
        device=run.device,
        batch_size=embedding.batch,
        shard_size=cluster.shard_size,
        columns=_parse_columns(cluster.columns),
    )
    with _interruptible(output):
        done = embed_on_ray(
            artifact,
            images,
            output,
            options,
            manifest=manifest,
            resume=embedding.resume,
            progress_bar=progress_bar,
        )
    _report_cluster_run(done, json_file, artifact)


def _embed_here(session: Session, paths: list[str], output: Path, options: EmbeddingOptions) -> EmbeddingRun:
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
    """Ctrl-C ends with status 130, and says where the finished part is."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. What is finished is in {kept}: continue with --resume.",
            err=True,
        )
        raise typer.Exit(130) from None


def _parse_columns(text: str) -> Columns:
    names = text.split(",")
    if len(names) != 2 or not all(names):
        raise InputError(f"--columns {text!r}: expected two names, for example image,path.")
    return Columns(*names)


def _report(run: EmbeddingRun, json_file: Path | None, artifact: Path) -> None:
    if run.num_resumed:
        typer.echo(f"{run.num_resumed} images were finished by the interrupted run.", err=True)
    for _, reason in run.skipped:
        typer.echo(f"skipped {reason}", err=True)
    write_json(json_file, {"artifact": str(artifact), **asdict(run), "output": str(run.output)})
    _conclude(run, f"{run.num_embedded} embeddings", len(run.skipped))


def _report_cluster_run(run: ClusterRun, json_file: Path | None, artifact: Path) -> None:
    for description in run.sessions:
        typer.echo(description, err=True)
    if run.num_resumed_shards:
        typer.echo(f"{run.num_resumed_shards} of {run.num_shards} shards were finished before.", err=True)
    for _, reason in islice(read_errors(run.output), _MAX_LISTED):
        typer.echo(f"skipped {reason}", err=True)
    if run.num_bad > _MAX_LISTED:
        typer.echo(f"... and {run.num_bad - _MAX_LISTED} more: {run.output / ERRORS_NAME}", err=True)
    write_json(json_file, {"artifact": str(artifact), **asdict(run), "output": str(run.output)})
    _conclude(run, f"{run.num_embedded} embeddings in {run.num_shards} parts", run.num_bad)


def _conclude(run: EmbeddingRun | ClusterRun, embedded: str, num_skipped: int) -> None:
    speed = run.num_new / max(run.seconds, 1e-9)
    typer.echo(f"{run.output}: {embedded}, {num_skipped} skipped, {speed:.0f} images/s")
    if num_skipped:
        raise typer.Exit(1)
