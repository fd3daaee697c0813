"""What is measured: an artifact on a backend, and a seeded network without an artifact."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from reidruntime import Session, SessionOptions, open_session
from reidruntime.artifact.manifest import Precision, file_sha256
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.backends import BackendName, DeviceName
from reidruntime.images.preprocess import image_pixels, network_input, normalize
from reidruntime.images.resize import Image8
from torch import nn

from benchmarks.harness.fresh_process import fresh_answer
from benchmarks.peers.gpu_peers import Answer, CompileMode, Opener, compiled_on_cpu, torch_peers
from benchmarks.peers.peers import (
    Embed,
    bare_onnxruntime,
    bare_openvino,
    num_threads,
    onnxruntime_takes,
    torch_eager,
)
from reidexport import Checkpoint, GraphOptions, save_checkpoint
from reidexport.checkpoint.loading import imagenet_preprocess
from reidexport.data.synthetic import draw_people
from reidexport.export.onnx_check import TOLERANCE
from reidexport.metrics.agreement import agreement
from reidexport.models.baseline import Baseline, BaselineArchitecture, backbone_channels

NO_GPU = "needs an NVIDIA GPU: torch.cuda.is_available() is False"
# ONNX Runtime computes INT8 in float32 on a GPU, and FP16 in float32 on a CPU.
_SEEDED: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("fp16", "fp32")}
_NUM_STATISTICS = 16
_BRANCH_GAIN = 0.2
_TOLERANCE = {**TOLERANCE, "bf16": 5e-2}  # bfloat16 rounds to 8 bits, float16 to 11

Features = npt.NDArray[np.float32]
Ready = Callable[[], Features]  # the answer to pixels that were passed before


@dataclass(frozen=True)
class Subject:
    """An artifact opened on one backend; ``checkpoint``: what it was made from, if known."""

    path: Path
    session: Session
    checkpoint: Checkpoint | None

    def __str__(self) -> str:
        return f"{self.path.name}, {self.session.backend}"

    @property
    def precision(self) -> str:
        """What it computes in."""
        return self.session.precision

    def about(self, **more: Any) -> dict[str, Any]:
        """What a row holds about its subject."""
        manifest = self.session.manifest
        return {
            "artifact": self.path.name,
            "artifact_sha256": file_sha256(self.path),
            "manifest_sha256": manifest.sha256,
            "precision": self.precision,
            "backend": self.session.backend,
            "runtime": self.session.description,
            **more,
        }

    def pixels(self, batch_size: int) -> Image8:
        """Drawn people, uint8 (batch_size, height, width, 3), as ``Session.run`` accepts them."""
        people = draw_people(min(batch_size, 8))
        wanted = self.session.manifest.preprocess
        sized = [image_pixels(image, "drawn", wanted) for image in people]
        return np.resize(np.stack(sized), (batch_size, *sized[0].shape))

    def own_input(self, pixels: Image8) -> npt.NDArray[Any]:
        """The same pixels in the form of the file's own input, for runtimes that know nothing of a manifest."""
        return network_input(pixels, self.session.manifest)

    def bare_peers(self) -> dict[str, Embed]:
        """The vendors' own calls on the same file, by name; none for engines. They are called with ``own_input``."""
        if self.path.suffix != ".onnx":
            return {}
        peers = {}
        if onnxruntime_takes(device()):
            peers["onnxruntime bare"] = bare_onnxruntime(self.path, device())
        if device() == "cpu" and find_spec("openvino"):
            peers["openvino bare"] = bare_openvino(self.path)
        return peers

    def peers(self, pixels: Image8, *, compile_mode: CompileMode | None) -> dict[str, Ready]:
        """The vendors' calls and torch, by name, answering pixels in the CPU's memory; their answers are checked."""
        own, ours = self.own_input(pixels), self.session.run(pixels)
        sides: dict[str, Ready] = {name: partial(embed, own) for name, embed in self.bare_peers().items()}
        sides |= self.torch_sides(pixels, compile_mode=compile_mode)
        for side in sides.values():
            self.check(side(), ours)
        return sides

    def torch_sides(self, pixels: Image8, *, compile_mode: CompileMode | None) -> dict[str, Ready]:
        """The checkpoint in torch, by name; none without a checkpoint.

        On a CPU as its users write it, with ``torch.compile`` in its default mode; on a GPU at its best.
        """
        if self.checkpoint is None:
            return {}
        source = torch.from_numpy(pixels)
        if device() == "cpu":
            eager = torch_eager(self.checkpoint, self.options)
            sides: dict[str, Ready] = {"torch eager": partial(eager, pixels)}
            if compile_mode is not None:
                compiled = compiled_on_cpu(self.checkpoint, self.options, source)
                sides["torch.compile"] = lambda: compiled().numpy()
            return sides
        images = source.cuda()

        def copied(answer: Answer) -> Features:
            """The answer, with the pixels copied to where it reads them, and the features copied back."""
            images.copy_(source)
            return answer().cpu().numpy()

        peers = self.torch_peers(images, compile_mode=compile_mode)
        return {name: partial(copied, open_peer()) for name, open_peer in peers.items()}

    def torch_peers(self, images: torch.Tensor, *, compile_mode: CompileMode | None) -> dict[str, Opener]:
        """:func:`benchmarks.peers.gpu_peers.torch_peers` of the checkpoint; none without a checkpoint."""
        if self.checkpoint is None:
            return {}
        return torch_peers(self.checkpoint, self.options, self.precision, images, compile_mode=compile_mode)

    @property
    def options(self) -> GraphOptions:
        """How the artifact was exported."""
        manifest = self.session.manifest
        return GraphOptions(feature=manifest.feature, normalize=manifest.normalized, flip=manifest.flip)

    def check(self, features: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
        """Raise ArithmeticError unless answers differ by no more relative L2 than the precision may lose."""
        lost = agreement(features, expected).relative_l2
        limit = _TOLERANCE[self.precision]
        if not lost.max() < limit:
            raise ArithmeticError(
                f"{self}: differs by {lost.max():.2g} in relative L2, expected at most {limit}"
            )


def fresh_sides(
    subject: Subject,
    batch_size: int,
    folder: Path,
    figure: Literal["first_answer_s", "peak_mib"],
    checkpoint: Path | None = None,
) -> dict[str, Callable[[], list[float]]]:
    """Ours, the bare runtimes and, with a checkpoint, torch, by name: each call is a figure of a fresh process.

    Their answers to drawn people, which are kept in ``folder``, are checked.
    """
    pixels = subject.pixels(batch_size)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "own.npy", subject.own_input(pixels))
    ours = subject.session.run(pixels)

    def answer(side: str, pixels_name: str) -> list[float]:
        report = fresh_answer(side, subject.path, subject.session.backend, folder / pixels_name, checkpoint)
        subject.check(np.array(report.features), ours)
        return [getattr(report, figure)]

    inputs = {"reidexport": "pixels.npy", **dict.fromkeys(subject.bare_peers(), "own.npy")}
    inputs |= {"torch eager": "pixels.npy"} if checkpoint else {}
    return {side: partial(answer, side, name) for side, name in inputs.items()}


def seeded_artifacts() -> dict[Path, Precision]:
    """The names of the artifacts that are made where none is passed, and their precisions."""
    return {Path(f"seeded-{precision}.onnx"): precision for precision in _SEEDED[device()]}


def device() -> str:
    """Where sessions and peers run: "cuda" where torch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def backends_for(path: Path) -> list[BackendName]:
    """The backends to try an artifact on."""
    if path.suffix != ".onnx":
        return ["tensorrt"]
    if device() == "cuda":
        return ["torch-cuda", "onnxruntime"]
    return ["onnxruntime", "openvino", "openvino-bf16"] if find_spec("openvino") else ["onnxruntime"]


def open_subject(path: Path, backend: BackendName, checkpoint: Checkpoint | None) -> Subject:
    """Open an artifact on a backend; raises as ``open_session`` does.

    Raises:
        ValueError: the artifact was made from another checkpoint.
    """
    source = artifact_manifest(path).source
    if checkpoint and checkpoint.sha256 != source.sha256:
        raise ValueError(
            f"{path} was made from {source.name}, not from {checkpoint.name}: their hashes differ."
        )
    # Where there is a GPU, what is measured is on it: a session on the CPU in its place would be a wrong result.
    place: DeviceName = "cuda" if device() == "cuda" else "auto"
    return Subject(path, open_session(path, SessionOptions(backend, place, num_threads())), checkpoint)


def write_seeded_checkpoint(path: Path, backbone: str) -> None:
    """Write a strong baseline whose weights are drawn from a seed.

    Its norms have the statistics of drawn people: activations stay as moderate as a trained network's. Residual
    branches are small, as where training starts them (Goyal et al., 2017, section 5.1): what INT8 rounds then does not
    add up. The neck's norm has no statistics: it would enlarge what little the features of an untrained network differ
    by, and the error of INT8 with it.
    """
    torch.manual_seed(0)
    channels = backbone_channels(BaselineArchitecture(backbone))
    model = Baseline(BaselineArchitecture(backbone, feature_dim=channels)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of all batches, here one
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(parameter, _BRANCH_GAIN)
    preprocess = imagenet_preprocess(256, 128)
    people = [image_pixels(image, "drawn", preprocess) for image in draw_people(_NUM_STATISTICS)]
    with torch.no_grad():
        model(torch.from_numpy(normalize(np.stack(people), preprocess.model_copy(update={"layout": "NCHW"}))))
    save_checkpoint(path, model.eval(), preprocess)
