"""From a person re-identification checkpoint to an engine that provably gives the same answers.

checkpoint = load_checkpoint("resnet50_model_120.pth")
manifest = onnx_from_graph(graph_from_checkpoint(checkpoint), "resnet50.onnx")

Names are imported when first used, so that what needs no torch does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reidruntime.artifact.manifest import Manifest

    from reidexport.checkpoint.choices import CheckpointChoices
    from reidexport.checkpoint.loading import Checkpoint, load_checkpoint, save_checkpoint
    from reidexport.errors import ReidExportError
    from reidexport.evaluation.limits import Limits
    from reidexport.evaluation.parity import measure_parity, tasks_from_artifacts
    from reidexport.evaluation.scoring import evaluate
    from reidexport.evaluation.torch_session import session_from_checkpoint
    from reidexport.evaluation.verification import verify
    from reidexport.export.graph import GraphOptions, InferenceGraph, graph_from_checkpoint
    from reidexport.export.onnx_export import onnx_from_graph
    from reidexport.metrics.thresholds import verification_roc

_HOMES = {
    "reidexport.checkpoint.choices": ["CheckpointChoices"],
    "reidexport.checkpoint.loading": ["Checkpoint", "load_checkpoint", "save_checkpoint"],
    "reidexport.errors": ["ReidExportError"],
    "reidexport.evaluation.limits": ["Limits"],
    "reidexport.evaluation.parity": ["measure_parity", "tasks_from_artifacts"],
    "reidexport.evaluation.scoring": ["evaluate"],
    "reidexport.evaluation.torch_session": ["session_from_checkpoint"],
    "reidexport.evaluation.verification": ["verify"],
    "reidexport.export.graph": ["GraphOptions", "InferenceGraph", "graph_from_checkpoint"],
    "reidexport.export.onnx_export": ["onnx_from_graph"],
    "reidexport.metrics.thresholds": ["verification_roc"],
    "reidruntime.artifact.manifest": ["Manifest"],
}

__all__ = [
    "Checkpoint",
    "CheckpointChoices",
    "GraphOptions",
    "InferenceGraph",
    "Limits",
    "Manifest",
    "ReidExportError",
    "evaluate",
    "graph_from_checkpoint",
    "load_checkpoint",
    "measure_parity",
    "onnx_from_graph",
    "save_checkpoint",
    "session_from_checkpoint",
    "tasks_from_artifacts",
    "verification_roc",
    "verify",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'reidexport' has no attribute {name!r}")
