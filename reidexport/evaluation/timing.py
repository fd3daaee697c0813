"""How fast a session answers: latency of the network per batch size, and images per second from files."""

import time
from collections.abc import Sequence

import numpy as np
from reidruntime import Session
from reidruntime.images.resize import Image8

from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.errors import InputError
from reidexport.records.base import here
from reidexport.records.speed import BatchTiming, BenchReport, EndToEnd

_MIN_REPEATS = 5
_WARM_UP_SECONDS = 0.5
_TURNS = 10


def bench_session(
    session: Session,
    batch_sizes: Sequence[int] = (1, 8, 32),
    *,
    seconds_per_batch: float = 3.0,
    image_paths: Sequence[str] = (),
) -> BenchReport:
    """Measure a session.

    Args:
        session: the opened artifact.
        batch_sizes: images per call of ``session.run``; a static artifact splits or pads them.
        seconds_per_batch: how long to measure each batch size, after warming up; at least five runs.
        image_paths: files to measure end to end with, reading included; none: not measured.

    Raises:
        InputError: a batch size or the time is not positive.
        ImageError: an image cannot be read.
    """
    if not batch_sizes or min(batch_sizes) < 1 or seconds_per_batch <= 0:
        raise InputError(f"Expected positive sizes and seconds, got {batch_sizes}, {seconds_per_batch}.")
    place, before = here(), cpu_use()
    timings = tuple(_time_batch(session, size, seconds_per_batch) for size in batch_sizes)
    whole = _time_files(session, image_paths, max(batch_sizes), seconds_per_batch) if image_paths else None
    disturbed = disturbance(others_share(before, cpu_use()), place["machine"])
    warnings: tuple[str, ...] = (f"The machine was busy: {disturbed}.",) if disturbed else ()
    if disturbed and whole:
        speed = f"{whole.images_per_s:.1f} images/s from {whole.num_images} files"
        warnings, whole = (*warnings, f"Not compared with the network alone: {speed}."), None
    return BenchReport(
        session=session.description, batches=timings, end_to_end=whole, warnings=warnings, **place
    )


def _time_batch(session: Session, batch_size: int, seconds: float) -> BatchTiming:
    batch = noise(session, batch_size)
    _run_for(session, batch, min(_WARM_UP_SECONDS, seconds), 2)
    times = _run_for(session, batch, seconds, _MIN_REPEATS)
    p50, p90, p99 = (float(value) * 1000 for value in np.percentile(times, (50, 90, 99)))
    return BatchTiming(
        batch_size=batch_size,
        repeats=len(times),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        images_per_s=batch_size * len(times) / sum(times),
    )


def _time_files(session: Session, paths: Sequence[str], batch_size: int, seconds: float) -> EndToEnd:
    """Files and network in turn, several times over, as machines drift."""
    camids = _any_camids(session, len(paths))
    session.embed(paths[:batch_size], camids=camids and camids[:batch_size], batch_size=batch_size)
    batch = noise(session, batch_size)
    num_turns = min(_TURNS, -(-len(paths) // batch_size))
    times, elapsed = _run_for(session, batch, seconds / num_turns, 1), 0.0
    for turn in range(num_turns):
        part = paths[turn * len(paths) // num_turns : (turn + 1) * len(paths) // num_turns]
        began = time.perf_counter()
        camid_of = camids.__getitem__ if camids else None
        for _ in session.embed_batches(part, camid_of=camid_of, batch_size=batch_size):
            pass
        elapsed += time.perf_counter() - began
        times += _run_for(session, batch, seconds / num_turns, 1)
    speed, net_speed = len(paths) / elapsed, batch_size * len(times) / sum(times)
    return EndToEnd(
        num_images=len(paths),
        batch_size=batch_size,
        seconds=elapsed,
        images_per_s=speed,
        net_images_per_s=net_speed,
        share_of_net=speed / net_speed,
    )


def _run_for(session: Session, batch: Image8, seconds: float, min_repeats: int) -> list[float]:
    """Durations in seconds of runs, one after the other, until the time is over."""
    times: list[float] = []
    total, camids = 0.0, _any_camids(session, len(batch))
    while len(times) < min_repeats or total < seconds:
        began = time.perf_counter()
        session.run(batch, camids)
        times.append(time.perf_counter() - began)
        total += times[-1]
    return times


def _any_camids(session: Session, num_images: int) -> list[int] | None:
    """The cameras of a profile in turn, where one is in use: which camera does not matter for the time."""
    return np.resize(session.camids, num_images).tolist() if session.camids else None


def noise(session: Session, batch_size: int) -> Image8:
    """Random pixels for ``session.run``, as zeros would let some kernels off lightly."""
    wanted = session.manifest.preprocess
    shape = (batch_size, wanted.height_px, wanted.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
