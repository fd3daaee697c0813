"""Does a session answer as float32 on the CPU does, whatever batch a row is in and whoever asks?"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from reidruntime.resize import Image8
from reidruntime.session import Features, Session

from benchmarks.gpu_check.outcome import StepFailedError, Values, within
from reidexport.verification import CONSISTENCY_TOLERANCE, batch_consistency

# The largest relative L2 error of a row, and how far its cosine may be from 1, against float32 on the CPU.
ERROR_LIMIT = {"fp32": 1e-4, "fp16": 2e-2}
COSINE_LIMIT = {"fp32": 1e-6, "fp16": 1e-3}
_NUM_CONSISTENCY_IMAGES = 8
_NUM_THREADS, _ROUNDS = 4, 8
_REPLAY_SIZES, _REPLAY_ROUNDS = (1, 8, 3), 6


def parity(session: Session, images: Image8, expected: Features) -> Values:
    """Every image's answer beside the reference's."""
    found = session.embed(list(images), batch_size=8)
    precision = session.manifest.precision
    return within(
        differences(found, expected),
        {"max_relative_l2": ERROR_LIMIT[precision], "max_cosine_distance": COSINE_LIMIT[precision]},
    )


def consistency(session: Session, images: Image8) -> Values:
    """A row alone, duplicated, permuted, in a full batch and in a batch that is padded with other rows."""
    images = images[:_NUM_CONSISTENCY_IMAGES]
    found = batch_consistency(session, list(images))
    rows = images[:3]
    padded = np.concatenate([rows, np.repeat(images[-1:], 5, axis=0)])
    found["padded"] = differences(session.run(padded)[: len(rows)], session.run(rows))["max_relative_l2"]
    tolerance = CONSISTENCY_TOLERANCE[session.manifest.precision]
    return within(found, dict.fromkeys(found, tolerance))


def threads_agree(session: Session, images: Image8) -> Values:
    """Several threads at once, each with batches of its own size, get what one thread alone gets."""
    parts = [images[: size + 1] for size in range(_NUM_THREADS)]
    expected = [session.run(part) for part in parts]

    def ask(index: int) -> float:
        errors = [
            differences(session.run(parts[index]), expected[index])["max_relative_l2"] for _ in range(_ROUNDS)
        ]
        return max(errors)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        errors = list(pool.map(ask, range(_NUM_THREADS)))
    tolerance = CONSISTENCY_TOLERANCE[session.manifest.precision]
    return {
        **within({"max_relative_l2": max(errors)}, {"max_relative_l2": tolerance}),
        "threads": _NUM_THREADS,
        "runs_per_thread": _ROUNDS,
    }


def replays_equal_plain_runs(session: Session, images: Image8, largest: int) -> Values:
    """Batch sizes in turn, so that graphs and plain runs alternate: every answer has the bits of the first."""
    sizes = [size for size in _REPLAY_SIZES if size <= min(largest, len(images))]
    plain = {size: session.run(images[:size]) for size in sizes}
    for turn in range(_REPLAY_ROUNDS):
        for size in sizes:
            check_equal_bits(session.run(images[:size]), plain[size], f"batch {size}, turn {turn + 2}")
    return {"batch_sizes": sizes, "runs_of_each": _REPLAY_ROUNDS + 1}


def check_equal_bits(found: NDArray[np.generic], expected: NDArray[np.generic], what: str) -> None:
    """Raise StepFailedError, which names ``what``, unless both are the same to the last bit."""
    if (
        found.dtype != expected.dtype
        or found.shape != expected.shape
        or found.tobytes() != expected.tobytes()
    ):
        error = differences(np.asarray(found, np.float32), np.asarray(expected, np.float32))
        raise StepFailedError(
            f"{what} is not equal bit for bit: relative L2 {error['max_relative_l2']:.1e}", {**error}
        )


def differences(found: Features, expected: Features) -> dict[str, float]:
    """The worst row's relative L2 error and cosine distance; infinite where an answer is not finite."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return {"max_relative_l2": float("inf"), "max_cosine_distance": float("inf")}
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    errors = np.linalg.norm(a - b, axis=1) / np.maximum(norms_b, 1e-30)
    cosines = (a * b).sum(1) / np.maximum(norms_a * norms_b, 1e-30)
    return {"max_relative_l2": float(errors.max()), "max_cosine_distance": float((1 - cosines).max())}
