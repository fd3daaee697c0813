"""How many images a second does an artifact answer, and which share is that of what the machine can do?

On a GPU, within three minutes:

pytest benchmarks/bench_throughput.py -k "on_the_gpu and fp16" --compile-mode default --results DIR
"""

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from reidruntime.backends import BACKENDS

from benchmarks.harness.comparison import Compare, ComparisonOptions, Row
from benchmarks.harness.gpu_limit import Rates, layers_of, limit_images_per_s, measured_rates
from benchmarks.harness.gpu_peaks import device_seconds
from benchmarks.harness.operations import operations_per_image, peak
from benchmarks.harness.subjects import NO_GPU, Subject, device
from benchmarks.harness.turns import calls_in_a_row, rounded
from benchmarks.peers.gpu_peers import Answer, CompileMode, onnxruntime_peers
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
    pixels = subject.pixels(batch_size)
    sides = subject.peers(pixels, compile_mode=None if quick else compile_mode)
    limit = peak(subject.precision) if _has_limit(subject) else None
    row = compare(
        f"throughput of {subject}, batch {batch_size}",
        f"uint8 pixels in memory to float32 features; {_PEERS}; each turn is calls in a row for {_turn_s(quick)} s",
        lambda: subject.session.run(pixels),
        sides,
        ComparisonOptions(measure=partial(calls_in_a_row, at_least_s=_turn_s(quick))),
    )
    images_per_s = batch_size / row["seconds"]["reidexport"]["median"]
    row |= subject.about(batch_size=batch_size, images_per_s=rounded(images_per_s))
    if limit:
        operations = operations_per_image(subject.path)
        limit = max(limit, peak(subject.precision))
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

    Args:
        compare: the fixture.
        subject: an artifact whose session has ``run_tensor``.
        batch_size: within the artifact's profile.
        where: "cuda", or "cpu" to try the program out.
        compile_mode: of ``torch.compile``; None: it is not a peer.
        rates: of the device, in the precision of the artifact; None: the row has no limit.
        turn_s: the least time of a turn.

    Raises:
        ExceptionGroup: peers fail; the others were measured, and the row names those that failed.
    """
    sides = _sides_on_device(subject, batch_size, where, compile_mode)
    row = compare(
        f"throughput of {subject}, batch {batch_size}, in the memory of {where}",
        f"a tensor of uint8 pixels to a tensor of features, both in the memory of {where}; {_PEERS}; each turn is "
        f"calls in a row for {turn_s} s, timed on the device",
        sides.ours,
        sides.peers,
        ComparisonOptions(measure=partial(device_seconds, at_least_s=turn_s, device=where)),
    )
    images_per_s = {side: batch_size / figures["median"] for side, figures in row["seconds"].items()}
    row |= subject.about(
        batch_size=batch_size,
        in_memory_of=where,
        images_per_s=rounded(images_per_s.pop("reidexport")),
        peers_images_per_s={side: rounded(figure) for side, figure in images_per_s.items()},
        not_installed=sides.not_installed,
        failed_peers={name: f"{type(error).__name__}: {error}" for name, error in sides.failed.items()},
    )
    if rates:
        row |= _limit(subject, batch_size, rates, row)
    if sides.failed:
        raise ExceptionGroup(
            f"{subject}: peers that are installed and fail: {', '.join(sides.failed)}",
            [*sides.failed.values()],
        )
    return row


class _Sides(NamedTuple):
    """What is compared on a device, and which peers are not: ``failed`` by name, with their errors."""

    ours: Answer
    peers: dict[str, Answer]
    failed: dict[str, Exception]
    not_installed: list[str]
    inputs: tuple[torch.Tensor, torch.Tensor]  # kept because CUDA graphs and bindings read them by address


def _sides_on_device(
    subject: Subject, batch_size: int, where: str, compile_mode: CompileMode | None
) -> _Sides:
    """Our session and its peers, whose answers are checked, on one batch in a device's memory."""
    pixels = subject.pixels(batch_size)
    images, own = (torch.from_numpy(array).to(where) for array in (pixels, subject.own_input(pixels)))
    openers = subject.torch_peers(images, compile_mode=compile_mode)
    not_installed = []
    if subject.path.suffix == ".onnx" and onnxruntime_takes(where):
        openers |= onnxruntime_peers(subject.path, own)
    elif subject.path.suffix == ".onnx":
        not_installed.append(f"an onnxruntime for {where}")
    expected = subject.session.run(pixels)

    def checked(answer: Answer) -> Answer:
        subject.check(answer().float().reshape(batch_size, -1).cpu().numpy(), expected)
        return answer

    sides = _Sides(checked(lambda: subject.session.run_tensor(own)), {}, {}, not_installed, (images, own))
    for name, open_peer in openers.items():
        try:
            sides.peers[name] = checked(open_peer())
        except Exception as error:  # noqa: BLE001 - the caller raises it, once all others are measured
            sides.failed[name] = error
    return sides


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


def _has_limit(subject: Subject) -> bool:
    """On a GPU, of what is in its memory already: see test_on_the_gpu."""
    return device() == "cpu" and subject.path.suffix == ".onnx"
