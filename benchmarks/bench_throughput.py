"""How many images a second does an artifact answer, and which share is that of what the machine can do?

On a GPU, within three minutes:

pytest benchmarks/bench_throughput.py -k "on_the_gpu and fp16" --compile-mode default --results DIR
"""

from functools import partial
from typing import Any

import pytest
import torch
from reidruntime.backends import BACKENDS
from reidruntime.images.resize import Image8

from benchmarks.harness.comparison import Compare, ComparisonOptions, Row
from benchmarks.harness.gpu_limit import Rates, layers_of, limit_images_per_s, measured_rates
from benchmarks.harness.gpu_peaks import device_seconds
from benchmarks.harness.operations import operations_per_image, peak
from benchmarks.harness.subjects import NO_GPU, Subject, device
from benchmarks.harness.turns import calls_in_a_row, rounded
from benchmarks.peers.gpu_peers import Answer, CompileMode, Opener, onnxruntime_peers
from benchmarks.peers.peers import onnxruntime_takes

_PEERS = "same pixels, batch, threads and device, all warm"
_ON_GPU = device() == "cuda"
_BATCH_SIZES = (1, 8, 32, 128, 256) if _ON_GPU else (1, 8, 32)
_PRECISIONS = ("fp16", "bf16", "fp32")  # with a limit on a GPU
_MATRIX_SIZE, _COPY_MIB = 8192, 512


@pytest.mark.parametrize("batch_size", _BATCH_SIZES)
def test_offline(
    compare: Compare, subject: Subject, batch_size: int, quick: bool, compile_mode: CompileMode
) -> None:
    """Batch after batch, against the vendors' own calls, torch eager and torch.compile."""
    if quick and batch_size > 8:
        pytest.skip("quick: small batches only")
    # On a GPU, the limit is that of what is in its memory already: see test_on_the_gpu.
    has_limit = not _ON_GPU and subject.path.suffix == ".onnx"
    if has_limit:
        peak(subject.precision)  # and again behind the comparison: it remembers the higher one
    pixels = subject.pixels(batch_size)
    row = compare(
        f"throughput of {subject}, batch {batch_size}",
        f"uint8 pixels in memory to float32 features; {_PEERS}; each turn is calls in a row for {_turn_s(quick)} s",
        lambda: subject.session.run(pixels),
        subject.peers(pixels, compile_mode=None if quick else compile_mode),
        ComparisonOptions(measure=partial(calls_in_a_row, at_least_s=_turn_s(quick))),
    )
    images_per_s = batch_size / row["seconds"]["reidexport"]["median"]
    row |= subject.about(batch_size=batch_size, images_per_s=rounded(images_per_s))
    if has_limit:
        operations, limit = operations_per_image(subject.path), peak(subject.precision)
        row["operations_per_image"] = operations
        row["peak_gop_per_s"], row["peak_product"] = rounded(limit.gop_per_s), limit.product
        if operations:
            row["limit_images_per_s"] = rounded(1e9 * limit.gop_per_s / operations)
            if isinstance(row["ratios"], dict):
                row["share_of_limit"] = rounded(images_per_s * operations / (1e9 * limit.gop_per_s))


@pytest.mark.parametrize("batch_size", _BATCH_SIZES)
def test_on_the_gpu(
    compare: Compare, subject: Subject, batch_size: int, quick: bool, compile_mode: CompileMode
) -> None:
    """The network alone, from a tensor to a tensor in the GPU's memory, against ONNX Runtime and torch there."""
    if not _ON_GPU:
        pytest.skip(NO_GPU)
    if not BACKENDS[subject.session.backend].takes_tensors:
        pytest.skip(
            f"sessions of {subject.session.backend} take arrays: see test_offline, and the peers here"
        )
    profile = subject.session.manifest.batch_profile
    if not profile.minimum <= batch_size <= (profile.maximum or batch_size):
        pytest.skip(f"the artifact takes batches of {profile.minimum} to {profile.maximum}")
    rates = None
    if subject.path.suffix == ".onnx" and subject.precision in _PRECISIONS:
        rates = measured_rates(subject.precision, "cuda", _MATRIX_SIZE, _COPY_MIB)
    compare_on_device(compare, subject, batch_size, "cuda", compile_mode, rates, turn_s=_turn_s(quick))


def compare_on_device(
    compare: Compare,
    subject: Subject,
    batch_size: int,
    where: str,
    compile_mode: CompileMode | None,
    rates: Rates | None,
    *,
    turn_s: float,
) -> Row:
    """Measure a session that takes tensors, with all that is installed beside it.

    ``where`` is "cuda", or "cpu" to try the program out. Without a ``compile_mode``, ``torch.compile`` is no peer;
    without ``rates`` of the device, in the precision of the artifact, the row has no limit.

    Raises:
        ExceptionGroup: peers fail; the others were measured, and the row names those that failed.
    """
    pixels = subject.pixels(batch_size)
    # Kept to the end, because CUDA graphs and bindings read them by address.
    images, own = (torch.from_numpy(array).to(where) for array in (pixels, subject.own_input(pixels)))
    openers = subject.torch_peers(images, compile_mode=compile_mode)
    not_installed = []
    if subject.path.suffix == ".onnx" and onnxruntime_takes(where):
        openers |= onnxruntime_peers(subject.path, own)
    elif subject.path.suffix == ".onnx":
        not_installed.append(f"an onnxruntime for {where}")
    ours = partial(subject.session.run_tensor, own)
    peers, failed = _checked_peers(subject, pixels, ours, openers)
    row = compare(
        f"throughput of {subject}, batch {batch_size}, in the memory of {where}",
        f"a tensor of uint8 pixels to a tensor of features, both in the memory of {where}; {_PEERS}; each turn is "
        f"calls in a row for {turn_s} s, timed on the device",
        ours,
        peers,
        ComparisonOptions(measure=partial(device_seconds, at_least_s=turn_s, device=where)),
    )
    images_per_s = {side: batch_size / figures["median"] for side, figures in row["seconds"].items()}
    row |= subject.about(
        batch_size=batch_size,
        in_memory_of=where,
        images_per_s=rounded(images_per_s.pop("reidexport")),
        peers_images_per_s={side: rounded(figure) for side, figure in images_per_s.items()},
        not_installed=not_installed,
        failed_peers={name: f"{type(error).__name__}: {error}" for name, error in failed.items()},
    )
    if rates:
        row |= _limit(subject, batch_size, rates, row)
    if failed:
        message = f"{subject}: peers that are installed and fail: {', '.join(failed)}"
        raise ExceptionGroup(message, [*failed.values()])
    return row


def _checked_peers(
    subject: Subject, pixels: Image8, ours: Answer, openers: dict[str, Opener]
) -> tuple[dict[str, Answer], dict[str, Exception]]:
    """The peers whose answers are right, once ours is, and the errors of the others, by name."""
    expected = subject.session.run(pixels)

    def checked(answer: Answer) -> Answer:
        subject.check(answer().float().reshape(len(pixels), -1).cpu().numpy(), expected)
        return answer

    checked(ours)
    peers, failed = {}, {}
    for name, open_peer in openers.items():
        try:
            peers[name] = checked(open_peer())
        except Exception as error:  # noqa: BLE001 - the caller raises it, once all others are measured
            failed[name] = error
    return peers, failed


def _limit(subject: Subject, batch_size: int, rates: Rates, row: Row) -> dict[str, Any]:
    layers = layers_of(subject.path)
    limit = limit_images_per_s(layers, rates, batch_size)
    about: dict[str, Any] = {
        "operations_per_image": sum(layer.operations for layer in layers),
        "bytes_per_image": sum(layer.image_bytes for layer in layers),
        "weight_bytes": sum(layer.weight_bytes for layer in layers),
        "peak_tflop_per_s": rounded(rates.tflop_per_s),
        "copy_gb_per_s": rounded(rates.gb_per_s),
        "limit_images_per_s": rounded(limit),
    }
    if isinstance(row["ratios"], dict):
        about["share_of_limit"] = rounded(row["images_per_s"] / limit)
        about["peers_shares_of_limit"] = {
            side: rounded(figure / limit) for side, figure in row["peers_images_per_s"].items()
        }
    return about


def _turn_s(quick: bool) -> float:
    """A GPU needs less than a CPU: its work is not interrupted."""
    return 0.02 if quick else 0.1 if _ON_GPU else 0.3
