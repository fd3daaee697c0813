"""A run: planned, embedded, continued after an interruption, and joined into a file where one is wanted."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from reidruntime import Manifest, Session
from reidruntime.session import chosen_batch_size

from reidexport.embed.files import check_names, check_suffix, write_embeddings
from reidexport.embed.plan import Plan, Report, make_plan, total_of
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from reidexport.embed.sources import shards_of
from reidexport.embed.table import SUFFIX as TABLE_SUFFIX
from reidexport.embed.table import open_table
from reidexport.errors import ImageError, InputError
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.embeddings import EmbeddingRun

Executor = Callable[[Plan, list[int]], Iterator[Report]]


def embed_images(
    session: Session,
    sources: Sequence[str],
    output: Path,
    options: EmbeddingRunOptions | None = None,
    *,
    progress_bar: ProgressBar = no_progress_bar,
) -> EmbeddingRun:
    """Embed images on this machine into a ``.npz``, Parquet or gallery file, or into a folder of Parquet files.

    Args:
        session: the opened artifact.
        sources: as :func:`reidexport.embed.sources.shards_of` takes them.
        output: see :func:`embed_planned`.
        options: of the run.
        progress_bar: shows how far it is.

    Raises:
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        InputError: the output cannot be written or cannot hold a name, a source is missing, or a run cannot be
            continued.
        NotInstalledError: fsspec has no package for a URL.
    """
    options = options or EmbeddingRunOptions()

    def embed(plan: Plan, numbers: list[int]) -> Iterator[Report]:
        return embed_shards(session, plan, numbers, options)

    run = embed_planned(embed, sources, output, session.manifest, options, progress_bar)
    return run.model_copy(update={"sessions": (session.description,)})


def run_folder(output: Path) -> Path:
    """Where a run keeps what is finished: in a folder that is the output, or in ``NAME.partial`` beside a file."""
    return output.with_name(f"{output.name}.partial") if output.suffix else output


def embed_planned(
    execute: Executor,
    sources: Sequence[str],
    output: Path,
    manifest: Manifest,
    options: EmbeddingRunOptions,
    progress_bar: ProgressBar,
) -> EmbeddingRun:
    """Plan a run, let its unfinished shards be embedded, and join them if the output is a file.

    A file appears whole, at the end; then the folder of the run goes.

    Args:
        execute: embeds the shards of a plan that have these numbers.
        sources: as :func:`reidexport.embed.sources.shards_of` takes them.
        output: ``*.npz``, ``*.parquet``, ``*.gallery``, or a name without suffix for a folder of Parquet files.
        manifest: of the artifact.
        options: of the run.
        progress_bar: shows the number of images, or of shards where tars do not tell how many images they hold.
    """
    began = time.time()
    folder = run_folder(output)
    if output.suffix:
        check_suffix(output)
    batch = chosen_batch_size(manifest, options.batch_size)
    shard_size = math.ceil(options.shard_size / batch) * batch
    shards = list(shards_of(sources, shard_size, options.columns, own=(output, folder)))
    if not shards:
        raise InputError(f"{', '.join(sources)}: there are no images.")
    if output.suffix in ("", TABLE_SUFFIX):
        check_names(path for shard in shards for path in shard.paths)
    plan = make_plan(
        folder, shards, manifest_sha256=manifest.sha256, columns=options.columns, resume=options.resume
    )
    unfinished = plan.unfinished()
    before = total_of(plan.report(number) for number in set(range(len(shards))).difference(unfinished))
    num_images = None if shards[-1].kind != "images" else sum(len(shard.paths) for shard in shards)
    try:
        reports = execute(plan, unfinished) if unfinished else iter(())
        done = _sum_of(reports, before, num_images, len(shards), progress_bar)
    finally:
        if len(plan.unfinished()) == len(shards):
            shutil.rmtree(folder)
    skipped = tuple(plan.bad_images())
    if output.suffix:
        parts = open_table(folder)
        write_embeddings(output, list(parts.paths()), (part.embeddings for part in parts.parts()), manifest)
        shutil.rmtree(folder)
    else:
        plan.remove_left_overs()
    seconds = time.time() - began
    return EmbeddingRun(
        output=output,
        num_shards=len(shards),
        num_embedded=done.num_embedded,
        num_new=done.num_embedded - before.num_embedded,
        num_resumed=before.num_images,
        skipped=skipped,
        sessions=(),
        seconds=seconds,
        total_seconds=seconds,
    )


def _sum_of(
    reports: Iterator[Report],
    done: Report,
    num_images: int | None,
    num_shards: int,
    progress_bar: ProgressBar,
) -> Report:
    """What is done when the last report is in, ``done`` included."""
    unit, total = ("images", num_images) if num_images else ("shards", num_shards)
    try:
        first = next(
            reports, Report()
        )  # a cluster is started, and the terminal kept for us, before there is a bar
        with progress_bar(f"embedding {unit}", total) as progress:
            for report in chain((first,), reports):
                done = total_of((done, report))
                if progress:
                    progress(done.num_images if num_images else done.num_shards)
    except ImageError as error:
        of_all = f" of {num_images}" if num_images else ""
        num_done = done.num_embedded + done.num_bad
        raise ImageError(
            f"{error} Fix the image, then run the same command with --resume, or skip bad images with --resume "
            f"--on-error skip; {num_done}{of_all} images are done."
        ) from error
    return done
