"""What is checked of every path from an artifact to features; a file of checks has a fixture ``session`` for it."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from reidruntime.session import Session
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.gpu_limit import layers_of, limit_images_per_s, measured_rates
from benchmarks.harness.gpu_peaks import device_seconds
from reidexport.evaluation.limits import DEFAULT_LIMITS
from reidexport.evaluation.verification import batch_consistency
from reidexport.export.onnx_check import TOLERANCE
from tests.gpu.conftest import Judge, Setup

_STREAMED_BATCHES = 16


class PathChecks:
    """Of every path."""

    takes_tensors = False

    @pytest.mark.parametrize("kind", ["arrays", "files"])
    def test_parity(self, kind: str, session: Session, setup: Setup, judge: Judge) -> None:
        """Every answer is float32's, within the limit of the precision."""
        images = setup.photos if kind == "files" else list(setup.load("images"))
        expected, limit = setup.load(f"answers_to_{kind}"), TOLERANCE[session.manifest.precision]
        judge.close(session.embed(images, batch_size=8), expected, limit)

    def test_batch_consistency(self, session: Session, setup: Setup, judge: Judge) -> None:
        """A row answers the same alone, repeated, permuted and in a full batch."""
        found = batch_consistency(session, list(setup.load("images")[:8]))
        judge.within(DEFAULT_LIMITS[session.manifest.precision].max_batch_change, **found)

    def test_threads(self, session: Session, setup: Setup, judge: Judge) -> None:
        """Several threads at once, each with batches of its own size, get what one thread alone gets."""
        parts = [setup.load("images")[size : 2 * size + 1] for size in range(4)] * 8
        alone = [session.run(part) for part in parts[:4]] * 8
        with ThreadPoolExecutor(4) as pool:
            found = np.concatenate(list(pool.map(session.run, parts)))
        judge.close(found, np.concatenate(alone), DEFAULT_LIMITS[session.manifest.precision].max_batch_change)

    def test_steady_memory(self, session: Session, setup: Setup, judge: Judge) -> None:
        """Thousands of calls leave the memory of GPU and process as it was."""
        judge.steady_memory(partial(session.run, setup.load("images")[:1]), setup.calls)

    @pytest.mark.parametrize("size", [1, 8, 32, 128])
    def test_speed(self, size: int, session: Session, setup: Setup, judge: Judge) -> None:
        """Measured: arrays; a stream of arrays, and of files, with copies overlapped; tensors on a GPU."""
        if size > setup.largest_batch:
            pytest.skip("not with --quick")
        images = np.random.default_rng(0).integers(0, 256, (size, *setup.size_px, 3), dtype=np.uint8)
        works = {"caller": (size, partial(session.run, images))}
        for name, source in (("streamed", list(images)), ("files", setup.photos * size)):
            stream = (source * _STREAMED_BATCHES)[: size * _STREAMED_BATCHES]
            works[name] = (len(stream), partial(session.embed, stream, batch_size=size))
        if self.takes_tensors:
            works["device"] = (size, partial(session.run_tensor, torch.from_numpy(images).to(setup.device)))
        precision: Any = session.manifest.precision
        rates = measured_rates(precision, setup.device, setup.matrix_size, setup.matrix_size // 16)
        limit = limit_images_per_s(layers_of(setup.folder / f"{precision}.onnx"), rates, size)
        known = {"batch_size": size, "precision": precision, **rates._asdict(), "limit_images_per_s": limit}
        for name, (num_images, work) in works.items():
            seconds = device_seconds(work, setup.seconds, setup.device if name == "device" else "cpu")
            known[f"{name}_p50_ms"] = float(np.median(seconds)) * 1e3
            known[f"{name}_images_per_s"] = num_images * len(seconds) / sum(seconds)
            known[f"{name}_share_of_limit"] = known[f"{name}_images_per_s"] / limit
        for name, value in known.items():
            judge.record(name, value)


class LaneChecks(PathChecks):
    """Of paths that run in the runtime's lanes: streams of their own, CUDA graphs, tensors that stay on the GPU."""

    takes_tensors = True

    def test_replays_equal_plain_runs(self, session: Session, setup: Setup, judge: Judge) -> None:
        """Batch sizes in turn, so that graphs and plain runs alternate: every answer has the bits of the first."""
        images = setup.load("images")
        plain = {size: session.run(images[:size]) for size in (1, 8, 3)}
        for turn in range(6):
            for size, expected in plain.items():
                judge.same_bits(session.run(images[:size]), expected, f"batch {size}, turn {turn + 2}")
        captured = session._network.graph_sizes  # type: ignore[union-attr]
        judge.record("captured_batch_sizes", list(captured))
        if setup.device == "cuda":
            assert len(captured) >= len(plain), f"CUDA graphs of batches {captured} only"

    def test_tensors(self, session: Session, setup: Setup, judge: Judge) -> None:
        """The bits of arrays, also where another stream writes the images late; the host is not involved."""
        images = setup.load("images")[:8]
        expected, tensor = session.run(images), torch.from_numpy(images).to(setup.device)
        for turn in range(3):
            judge.same_bits(session.run_tensor(tensor).cpu().numpy(), expected, f"turn {turn + 1}")
        if setup.device == "cpu":
            pytest.skip("the bits are equal; streams and copies need a GPU")
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            late = torch.zeros_like(tensor)
            torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]
            late.copy_(tensor)
            found = session.run_tensor(late).cpu().numpy()
        judge.same_bits(found, expected, "images that were written late")
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            session.run_tensor(tensor)
            torch.cuda.synchronize()
        events = profiler.events() or []
        if not any(event.device_type.name == "CUDA" for event in events):
            pytest.skip("the bits are equal, but torch's profiler sees nothing on this GPU (CUPTI)")
        copies = {each.name for each in events if each.name.startswith(("Memcpy HtoD", "Memcpy DtoH"))}
        assert not copies, f"running on a tensor copies: {copies}"
