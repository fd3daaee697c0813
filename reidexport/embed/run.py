"""A run: planned, embedded, continued after an interruption, and joined into a file where one is wanted."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from reidruntime import Manifest
from reidruntime.session import chosen_batch_size

from reidexport.embed.files import check_names, check_suffix, write_embeddings
from reidexport.embed.plan import Done, Plan, Shard, make_plan, planned_shard_size
from reidexport.embed.shards import EmbeddingRunOptions
from reidexport.embed.sources import shards_of
from reidexport.embed.table import TABLE_SUFFIX, open_table
from reidexport.errors import ImageError, InputError
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.embeddings import EmbeddingRun

Executor = Callable[[Plan, list[int], EmbeddingRunOptions], Iterator[Done]]


def run_folder(output: Path) -> Path:
    """Where a run keeps what is finished: in a folder that is the output, or in ``NAME.partial`` beside a file."""
    return output.with_name(f"{output.name}.partial") if output.suffix else output


def embed_images(
    execute: Executor,
    sources: Sequence[str],
    output: Path,
    manifest: Manifest,
    options: EmbeddingRunOptions,
    progress_bar: ProgressBar = no_progress_bar,
) -> EmbeddingRun:
    """Embed images into a ``.npz``, Parquet or gallery file, or into a folder of Parquet files.

    Finished shards are kept in :func:`run_folder`. A file appears whole, at the end; then the folder goes.

    Args:
        execute: embeds the shards of a plan that have these numbers: ``partial(embed_shards, session)`` on this
            machine, ``partial(embed_shards_on_ray, artifact, manifest, cluster)`` on a cluster.
        sources: as :func:`reidexport.embed.sources.shards_of` takes them.
        output: ``*.npz``, ``*.parquet``, ``*.gallery``, or a name without suffix for a folder of Parquet files.
        manifest: of the artifact.
        options: of the run.
        progress_bar: shows the number of images, or of shards where tars do not tell how many images they hold.

    Raises:
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        InputError: the output cannot be written or cannot hold a name, a source is missing, or a run cannot be
            continued.
        NotInstalledError: Ray, or what opens a URL, is missing.
        ClusterError: the cluster cannot be reached, or fails.
    """
    began = time.time()
    is_new = not run_folder(output).exists()
    shard_size = _shard_size(output, manifest, options)
    shards = _shards_for(output, sources, options, shard_size)
    plan = make_plan(
        run_folder(output),
        shards,
        manifest_sha256=manifest.sha256,
        columns=options.columns,
        shard_size=shard_size,
        resume=options.resume,
    )
    before = plan.counts()
    # Images come first; what tars and Parquet files hold is not known before they are read.
    num_images = sum(len(shard.paths) for shard in shards) if shards[-1].kind == "images" else None
    with _resumable(plan, num_images, is_new=is_new):
        sessions = _execute(execute, plan, options, num_images, sum(before), progress_bar)
    (num_embedded, _), skipped = plan.counts(), tuple(plan.bad_images())
    _finish(plan, output, manifest)
    now = time.time()
    return EmbeddingRun(
        output=output,
        num_shards=len(shards),
        num_embedded=num_embedded,
        num_new=num_embedded - before[0],
        num_resumed=sum(before),
        skipped=skipped,
        sessions=tuple(sorted(sessions)),
        seconds=now - min(sessions.values(), default=now),
        total_seconds=now - began,
    )


def _shard_size(output: Path, manifest: Manifest, options: EmbeddingRunOptions) -> int:
    """That of the run to continue, or as many whole batches as are wanted at least."""
    batch = chosen_batch_size(manifest, options.batch_size)
    planned = planned_shard_size(run_folder(output)) if options.resume else None
    return planned or math.ceil(options.shard_size / batch) * batch


def _shards_for(
    output: Path, sources: Sequence[str], options: EmbeddingRunOptions, shard_size: int
) -> list[Shard]:
    if output.suffix:
        check_suffix(output)
    shards = list(shards_of(sources, shard_size, options.columns, own=(output, run_folder(output))))
    if not shards:
        raise InputError(f"{', '.join(sources)}: there are no images.")
    if output.suffix in ("", TABLE_SUFFIX):
        check_names(path for shard in shards for path in shard.paths)
    return shards


@contextmanager
def _resumable(plan: Plan, num_images: int | None, *, is_new: bool) -> Iterator[None]:
    """A bad image's error says how to go on; a run in a new folder, of which nothing is finished, leaves nothing."""
    try:
        yield
    except ImageError as error:
        of_all = f" of {num_images}" if num_images else ""
        raise ImageError(
            f"{error} Fix the image, then run the same command with --resume, or skip bad images with --resume "
            f"--on-error skip; {sum(plan.counts())}{of_all} images are done."
        ) from error
    finally:
        if is_new and len(plan.unfinished()) == len(plan.offsets):
            shutil.rmtree(plan.folder)


def _finish(plan: Plan, output: Path, manifest: Manifest) -> None:
    """Join the parts into a file, if the output is one."""
    if output.suffix:
        table = open_table(plan.folder)
        write_embeddings(output, list(table.paths), table.embeddings(), manifest)
        shutil.rmtree(plan.folder)
    else:
        plan.remove_left_overs()


def _execute(
    execute: Executor,
    plan: Plan,
    options: EmbeddingRunOptions,
    num_images: int | None,
    num_resumed: int,
    progress_bar: ProgressBar,
) -> dict[str, float]:
    """Let the unfinished shards be embedded; returns the sessions, and when each was ready."""
    sessions: dict[str, float] = {}
    unfinished = plan.unfinished()
    num_done = num_resumed if num_images else len(plan.offsets) - len(unfinished)
    unit, total = ("images", num_images) if num_images else ("shards", len(plan.offsets))
    steps = execute(plan, unfinished, options) if unfinished else iter(())
    first = next(steps, Done())  # a cluster is started, and the terminal kept for us, before there is a bar
    with progress_bar(f"embedding {unit}", total) as progress:
        for done in chain((first,), steps):
            num_done += done.num_images if num_images else done.num_shards
            if done.num_shards:
                sessions.setdefault(done.session, done.ready)
            if progress:
                progress(min(num_done, total))  # what is read again after an error has counted before
    return sessions
