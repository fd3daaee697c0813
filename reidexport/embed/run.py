"""A run: planned, embedded, continued after an interruption, and joined into a file where one is wanted."""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from reidgallery import Gallery
from reidgallery.file import GALLERY_SUFFIX, file_identity
from reidruntime import Manifest
from reidruntime.session import chosen_batch_size

from reidexport.data.image_paths import Log
from reidexport.data.label_file import LabelFile
from reidexport.embed.adding import refuse_duplicates
from reidexport.embed.files import check_names, check_suffix, labeled_parts, write_embeddings
from reidexport.embed.plan import Done, Plan, Shard, make_plan, planned_shard_size
from reidexport.embed.shards import EmbeddingRunOptions
from reidexport.embed.sources import shards_of
from reidexport.embed.table import TABLE_SUFFIX, open_table
from reidexport.embed.target import NEW_TARGET, TargetOptions, existing_gallery, save_gallery
from reidexport.errors import ImageError, InputError
from reidexport.progress import ProgressBar, no_progress_bar
from reidexport.records.embeddings import EmbeddingRun, GalleryChange

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
    *,
    target: TargetOptions = NEW_TARGET,
    log: Log = lambda _: None,
) -> EmbeddingRun:
    """Embed images into a ``.npz``, Parquet or gallery file, or into a folder of Parquet files.

    Finished shards are kept in :func:`run_folder`. A file appears whole, at the end; then the folder goes.

    Args:
        execute: embeds the shards of a plan that have these numbers: ``partial(embed_shards, session)`` on this
            machine, ``partial(embed_shards_on_ray, artifact, manifest, cluster)`` on a cluster.
        sources: as :func:`reidexport.embed.sources.shards_of` takes them.
        output: ``*.npz``, ``*.parquet``, ``*.gallery``, or a name without suffix for a folder of Parquet files.
        manifest: of the artifact, with the camera profile that is used.
        options: of the run; its table tells the images' persons and times, too.
        progress_bar: shows the number of images, or of shards where tars do not tell how many images they hold.
        target: what to do where the output is a gallery that exists.
        log: called with a line for each folder of which files are left out.

    Raises:
        ImageError: an image is bad and ``options.on_error`` is ``"stop"``.
        InputError: the output cannot be written or cannot hold a name, a source is missing, or a run cannot be
            continued; or the output is a gallery that exists, ``target`` does not say what to do, or what is there does
            not fit; or the table is about none of the images.
        NotInstalledError: Ray, or what opens a URL, is missing.
        ClusterError: the cluster cannot be reached, or fails.
    """
    began, table = time.time(), options.labels
    if output.suffix:
        check_suffix(output)
    elif table is not None and manifest.cameras_sha256 is None:
        raise InputError(
            f"{output}: a folder of parts holds no labels. Pass --labels to reidexport store, which reads the folder, "
            "or write a file."
        )
    is_new = not run_folder(output).exists()
    shard_size = _shard_size(output, manifest, options)
    looked_at = file_identity(output) if output.suffix == GALLERY_SUFFIX else None
    old = existing_gallery(output, manifest, target)
    every = _shards_for(output, sources, options, shard_size, log)
    are_images = every[-1].kind == "images"
    if table is not None and are_images:
        table.notes([path for shard in every for path in shard.paths])  # or say that it is about others
    shards, known = _unknown_images(every, old, target, output)
    plan = make_plan(
        run_folder(output),
        shards,
        manifest_sha256=manifest.sha256,
        cameras_sha256=table.cameras_sha256 if table and manifest.cameras_sha256 else None,
        columns=options.columns,
        shard_size=shard_size,
        resume=options.resume,
    )
    before = plan.counts()
    # Images come first; what tars and Parquet files hold is not known before they are read.
    num_images = sum(len(shard.paths) for shard in shards) if are_images else None
    with _resumable(plan, num_images, is_new=is_new):
        sessions = _execute(execute, plan, options, num_images, sum(before), progress_bar)
    (num_embedded, _), skipped = plan.counts(), tuple(plan.bad_images())
    # What others add to a gallery in the meantime is appended to, unless images were left out for being there.
    if_still = None if target.existing == "append" and not known else looked_at
    change, notes = _finish(plan, output, manifest, target, table, known, if_still)
    if change and known:
        change = change.model_copy(
            update={"num_duplicates_skipped": change.num_duplicates_skipped + len(known)}
        )
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
        change=change,
        notes=notes,
    )


def _unknown_images(
    shards: list[Shard], old: Gallery | None, target: TargetOptions, output: Path
) -> tuple[list[Shard], list[str]]:
    """The shards without image files that the gallery has, where these are to be skipped, and those files.

    What is in tars and in Parquet files is compared when it is added.
    """
    if old is None or target.existing != "append" or target.rules.on_duplicate == "replace":
        return shards, []
    known = set(old.paths)
    found = [path for shard in shards if shard.kind == "images" for path in shard.paths if path in known]
    if target.rules.on_duplicate == "error":
        refuse_duplicates(found, str(output))
        return shards, []
    left = [shard._replace(paths=[path for path in shard.paths if path not in known]) for shard in shards]
    return [shard for shard in left if shard.paths] or [Shard("images", ())], found


def _shard_size(output: Path, manifest: Manifest, options: EmbeddingRunOptions) -> int:
    """That of the run to continue, or as many whole batches as are wanted at least."""
    batch = chosen_batch_size(manifest, options.batch_size)
    planned = planned_shard_size(run_folder(output)) if options.resume else None
    return planned or math.ceil(options.shard_size / batch) * batch


def _shards_for(
    output: Path, sources: Sequence[str], options: EmbeddingRunOptions, shard_size: int, log: Log
) -> list[Shard]:
    shards = list(shards_of(sources, shard_size, options.columns, own=(output, run_folder(output)), log=log))
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
            f"{error} Fix that, then run the same command with --resume, or skip bad images with --resume "
            f"--on-error skip; {sum(plan.counts())}{of_all} images are done."
        ) from error
    finally:
        if is_new and len(plan.unfinished()) == len(plan.offsets):
            shutil.rmtree(plan.folder)


def _finish(
    plan: Plan,
    output: Path,
    manifest: Manifest,
    target: TargetOptions,
    table: LabelFile | None,
    known: list[str],
    if_still: str | None,
) -> tuple[GalleryChange | None, tuple[str, ...]]:
    """Join the parts into a file, if the output is one; returns what changed in a gallery, and notes on the labels.

    The notes are about the ``known`` images, too, which the gallery has and were not embedded. A gallery is replaced
    only where it is still the one of ``if_still``.
    """
    if not output.suffix:
        plan.remove_left_overs()
        return None, ()
    parts, change = open_table(plan.folder), None
    paths = list(parts.paths)
    notes = () if table is None else tuple(table.notes([*known, *paths]))
    if output.suffix == GALLERY_SUFFIX:
        rows = labeled_parts(paths, parts.embeddings(), table)
        try:
            change = save_gallery(output, rows, manifest, target, if_still)
        except InputError as error:
            raise InputError(f"{error} What was embedded is kept for --resume.") from error
    else:
        write_embeddings(output, paths, parts.embeddings(), manifest, table)
    shutil.rmtree(plan.folder)
    return change, notes


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
