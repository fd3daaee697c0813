"""The network that every subject runs, and the answers that they must give: float32, on the CPU."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from reidruntime import open_session
from reidruntime.resize import Image8
from reidruntime.session import Features

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.outcome import StepSkippedError, Values, within
from benchmarks.gpu_check.settings import Settings

IMAGES, CHECKPOINT, FACTS = "images.npy", "network.pth", "network.json"
_SEED = 4
Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def prepare(bench: Bench, settings: Settings) -> None:
    """Write the network, the images, the reference's answers and the ONNX files for the other groups."""
    bench.check("reference", "answers on the CPU", 5, lambda: _write_reference(settings))
    if settings.artifact:
        bench.check("ONNX artifact", "answers on the CPU", 5, lambda: _take_artifact(settings))
        return
    for precision in PRECISIONS:
        bench.check(f"ONNX {precision}", "exports", 10, partial(_export, settings, precision))


def images_of(settings: Settings) -> Image8:
    """The images to compare answers on: uint8 (N, height, width, 3)."""
    images: Image8 = _load(settings.file(IMAGES))
    return images


def answers_of(settings: Settings, of: str) -> Features:
    """What float32 on the CPU answers to them: that of ``"network"``, or of the ONNX file of a precision."""
    answers: Features = _load(settings.file(f"{of}.npy"))
    return answers


def onnx_of(settings: Settings, precision: Precision) -> Path:
    """The ONNX file of a precision.

    Raises:
        StepSkippedError: there is none.
    """
    path = settings.file(f"{precision}.onnx")
    if not path.is_file():
        raise StepSkippedError(f"there is no {precision} ONNX file, see its export")
    return path


def checkpoint_of(settings: Settings) -> Path:
    """The network's checkpoint."""
    return Path(settings.checkpoint) if settings.checkpoint else settings.file(CHECKPOINT)


def flop_per_image(settings: Settings) -> float | None:
    """Floating-point operations of one image, two for each multiply-add; None where it was not counted."""
    path = settings.file(FACTS)
    return float(json.loads(path.read_text())["flop_per_image"]) if path.is_file() else None


def _write_reference(settings: Settings) -> Values:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from reidexport.checkpoint import load_checkpoint
    from reidexport.graph import graph_from_checkpoint
    from reidexport.torch_session import session_from_checkpoint

    if torch.cuda.is_available():
        raise RuntimeError("the reference must not see the GPU: set CUDA_VISIBLE_DEVICES to nothing")
    if not settings.checkpoint:
        _write_seeded_network(settings)
    checkpoint = load_checkpoint(checkpoint_of(settings))
    images = _draw_images(settings, checkpoint.preprocess.height_px, checkpoint.preprocess.width_px)
    with session_from_checkpoint(checkpoint) as reference:
        answers = reference.embed(list(images), batch_size=8)
    np.save(settings.file("network.npy"), answers)
    graph = graph_from_checkpoint(checkpoint)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(torch.from_numpy(images[:1]))
    facts = {
        "network": checkpoint.summary,
        "checkpoint": checkpoint.name if settings.checkpoint else "seeded",
        "flop_per_image": counter.get_total_flops(),
        "num_images": len(images),
    }
    settings.file(FACTS).write_text(json.dumps(facts))
    return facts


def _write_seeded_network(settings: Settings) -> None:
    """Weights drawn so that activations stay moderate through every block, as trained ones do."""
    import torch

    from reidexport.checkpoint import imagenet_preprocess, save_checkpoint
    from reidexport.models.baseline import Architecture, Baseline, backbone_channels
    from tests.golden.seeded import seeded_state_dict

    channels = backbone_channels(Architecture(settings.backbone))
    model = Baseline(Architecture(settings.backbone, feature_dim=channels))
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    drawn = seeded_state_dict(shapes, _SEED)
    model.load_state_dict({name: torch.from_numpy(np.asarray(values)) for name, values in drawn.items()})
    save_checkpoint(
        settings.file(CHECKPOINT), model, imagenet_preprocess(settings.height_px, settings.width_px)
    )


def _export(settings: Settings, precision: Precision) -> Values:
    import onnxscript  # noqa: F401  what torch.onnx.export needs, so that its absence is told by name

    from reidexport.checkpoint import load_checkpoint
    from reidexport.graph import graph_from_checkpoint
    from reidexport.onnx_export import onnx_from_graph

    graph = graph_from_checkpoint(load_checkpoint(checkpoint_of(settings)))
    manifest = onnx_from_graph(graph, settings.file(f"{precision}.onnx"), precision=precision)
    np.save(settings.file(f"{precision}.npy"), answers_of(settings, "network"))
    return {"layer_precisions": manifest.layer_precisions}


def _take_artifact(settings: Settings) -> Values:
    """Answer with ONNX Runtime on the CPU; the images are drawn anew where the size is another."""
    source = Path(settings.artifact or "")
    with open_session(source, backend="onnxruntime", device="cpu") as session:
        precision, pixels = session.manifest.precision, session.manifest.preprocess
        if precision not in PRECISIONS:
            raise StepSkippedError(
                f"{source.name} is {precision}, and only {' and '.join(PRECISIONS)} are checked"
            )
        images = _draw_images(settings, pixels.height_px, pixels.width_px)
        answers = session.embed(list(images), batch_size=8)
    settings.file(f"{precision}.onnx").symlink_to(source.resolve())
    np.save(settings.file(f"{precision}.npy"), answers)
    return within({"not_finite": float((~np.isfinite(answers)).sum())}, {"not_finite": 0})


def _draw_images(settings: Settings, height_px: int, width_px: int) -> Image8:
    from tests.golden.seeded import seeded_images

    images: Image8 = seeded_images(height_px, width_px, settings.num_images, _SEED)
    path = settings.file(IMAGES)
    if path.is_file() and images_of(settings).shape != images.shape:
        raise StepSkippedError(
            f"the artifact takes images of {height_px}x{width_px} px, the network others: give --checkpoint too"
        )
    np.save(path, images)
    return images


def _load(path: Path) -> Any:
    if not path.is_file():
        raise StepSkippedError(f"{path.stem} was not prepared, see the reference")
    return np.load(path)
