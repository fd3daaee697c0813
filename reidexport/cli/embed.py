"""``reidexport embed``: images in, a file or a folder of embeddings out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from reidgallery.file import GALLERY_SUFFIX
from reidruntime import Manifest
from typer import Argument, Option
from typer.core import TyperCommand

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, JsonOption, log
from reidexport.cli.shared_options import (
    ArtifactArgument,
    BatchOption,
    ForeignOptions,
    IncludeForgottenOption,
    LabelsOption,
    OnDuplicateOption,
    RunOptions,
    change_text,
)
from reidexport.data.label_file import LabelFile, read_label_file
from reidexport.embed.adding import AddingRules
from reidexport.embed.cluster import ClusterRunOptions, embed_shards_on_ray, import_ray
from reidexport.embed.plan import ERRORS_NAME, Columns, Done, Plan
from reidexport.embed.run import Executor, embed_images, run_folder
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.embed.target import TargetOptions
from reidexport.errors import InputError
from reidexport.files import check_replaceable
from reidexport.progress import progress_bar
from reidexport.records.embeddings import EmbeddingRun
from reidexport.records.reading import write_record

_on_ray = partial(Option, rich_help_panel="On a Ray cluster")
_on_gallery = partial(Option, rich_help_panel="A .gallery that exists")
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
        Literal["stop", "skip"],
        Option(help="At an image that cannot be read: stop, or skip it, name it, and exit with status 1."),
    ] = "stop"
    resume: Annotated[bool, Option("--resume", help="Continue the interrupted run of OUTPUT.")] = False
    force: ForceOption = False
    batch: BatchOption = None
    shard_size: Annotated[
        int,
        Option(
            min=1,
            help="Images in a part, rounded up to whole batches (a tar is one part): in each file of a folder, and "
            "what an interruption may lose.",
        ),
    ] = 1024
    columns: Annotated[
        str,
        Option(
            metavar="IMAGE,NAME",
            help="Columns of Parquet files: the images' bytes, and their names; dots lead into structs.",
        ),
    ] = "image,path"

    def run_options(self, labels: LabelFile | None) -> EmbeddingRunOptions:
        """The same, parsed; raises InputError where the columns are not two names."""
        names = self.columns.split(",")
        if len(names) != 2 or not all(names):
            raise InputError(f"--columns {self.columns!r}: expected two names, for example image,path.")
        return EmbeddingRunOptions(
            on_error=self.on_error,
            resume=self.resume,
            batch_size=self.batch,
            shard_size=self.shard_size,
            columns=Columns(*names),
            labels=labels,
        )


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


@dataclass(frozen=True)
class EmbeddingTarget:
    """Where the embeddings go, and what becomes of a .gallery that exists."""

    output: Annotated[
        Path,
        Option(
            "--output",
            "-o",
            help="The file to write: *.npz, *.parquet or *.gallery; a name without suffix for a folder of *.parquet.",
        ),
    ]
    append: Annotated[
        bool, _on_gallery("--append", help="Add to OUTPUT, where it exists; it must be of the same artifact.")
    ] = False
    replace: Annotated[bool, _on_gallery("--replace", help="Write OUTPUT anew, where it exists.")] = False
    on_duplicate: OnDuplicateOption = None
    include_forgotten: IncludeForgottenOption = False
    labels: LabelsOption = None

    def options(self) -> TargetOptions:
        """The same, for a run; raises InputError where they do not fit each other or the output."""
        given = [
            name
            for name, value in (
                ("--append", self.append),
                ("--replace", self.replace),
                ("--on-duplicate", self.on_duplicate),
                ("--include-forgotten", self.include_forgotten),
            )
            if value
        ]
        if given and self.output.suffix != GALLERY_SUFFIX:
            raise InputError(
                f"{self.output}: {', '.join(given)} are for {GALLERY_SUFFIX} files. Leave them out."
            )
        if self.append and self.replace:
            raise InputError("--append keeps what the gallery has, --replace does not. Pass one of them.")
        if self.on_duplicate and not self.append:
            raise InputError("--on-duplicate is about what a gallery has already. Pass --append, too.")
        rules = AddingRules(
            on_duplicate=self.on_duplicate or "error", include_forgotten=self.include_forgotten
        )
        return TargetOptions(
            existing="append" if self.append else "replace" if self.replace else "refuse", rules=rules
        )


@with_option_groups
def embed(
    artifact: ArtifactArgument,
    images: Annotated[
        list[str],
        Argument(
            metavar="PATH...",
            help="Images, *.tar, *.parquet, folders (searched deeply), patterns, and URLs of these.",
        ),
    ],
    *,
    embedding: EmbeddingOptions,
    target: EmbeddingTarget,
    run: RunOptions,
    cluster: ClusterOptions,
    foreign: ForeignOptions,
    json_file: JsonOption = None,
) -> None:
    """Embed images into a .npz or Parquet file, a gallery for reidexport search, or a folder of Parquet files.

    Exit status: 0 every image embedded, 1 some skipped, 2 bad input, 3 something not installed, 130
    interrupted. After an interruption the finished part is in OUTPUT.partial, or in the folder OUTPUT, and --resume
    continues from there.
    """
    output, existing = target.output, target.options()
    is_of_this_run = embedding.resume and run_folder(output).exists()
    check_replaceable(output, force=embedding.force or is_of_this_run or output.suffix == GALLERY_SUFFIX)
    table = None if target.labels is None else read_label_file(target.labels)
    options, manifest = embedding.run_options(table), foreign.manifest(artifact)
    if cluster.ray is None:
        execute: Executor = partial(_embed_here, run, artifact, manifest)
    else:
        import_ray()  # or say that it is missing, before the images are searched for
        nodes = ClusterRunOptions(cluster.ray, cluster.actors, run.options(), run.cameras)
        execute = partial(embed_shards_on_ray, artifact, manifest, nodes)
    try:
        known = run.features_manifest(artifact, manifest)
        done = embed_images(execute, images, output, known, options, progress_bar, target=existing, log=log)
    except KeyboardInterrupt:
        kept = run_folder(output)
        finished = f"What is finished is in {kept}: continue with --resume."
        log(f"Interrupted. {finished if kept.exists() else 'Nothing is finished: --resume starts anew.'}")
        raise typer.Exit(130) from None
    if cluster.ray is not None:
        for description in done.sessions:
            log(description)
    _report(done, artifact, json_file)


def _embed_here(
    run: RunOptions,
    artifact: Path,
    manifest: Manifest | None,
    plan: Plan,
    numbers: list[int],
    options: EmbeddingRunOptions,
) -> Iterator[Done]:
    """Embed shards by a session of this process, which is opened once the run is planned."""
    with run.open(artifact, manifest) as session:
        log(session.description)
        yield from embed_shards(session, plan, numbers, options)


def _report(run: EmbeddingRun, artifact: Path, json_file: Path | None) -> None:
    if run.num_resumed:
        log(f"{run.num_resumed} images were finished by the interrupted run.")
    in_folder, num_skipped = run.output.is_dir(), len(run.skipped)
    for note in run.notes:
        log(note)
    num_listed = _MAX_LISTED if in_folder else num_skipped
    for _, reason in run.skipped[:num_listed]:
        log(f"skipped {reason}")
    if num_skipped > num_listed:
        log(f"... and {num_skipped - num_listed} more: {run.output / ERRORS_NAME}")
    write_record(json_file, run.model_copy(update={"artifact": str(artifact)}))
    parts = f" in {run.num_shards} parts" if in_folder else ""
    speed = run.num_new / max(run.seconds, 1e-9)
    typer.echo(
        f"{run.output}: {run.num_embedded} embeddings{parts}, {num_skipped} skipped, {speed:.0f} images/s"
    )
    if run.change and not run.num_embedded == run.change.num_added == run.change.num_rows:
        typer.echo(f"{run.output}: {change_text(run.change)}")
    if num_skipped:
        raise typer.Exit(1)
