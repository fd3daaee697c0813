"""A checkpoint opened as a session: the reference that artifacts are compared with.

It runs the network as its authors wrote it, with BatchNorms in place and images normalized outside, so that
comparing an artifact with it also tests everything that the export folds.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from reidruntime.images.depth import Depth
from reidruntime.session import Session
from reidruntime.threads import default_threads
from reidruntime.torch_settings import exact_float32
from torch import Tensor

from reidexport.checkpoint.loading import Checkpoint, model_from_checkpoint
from reidexport.export.graph import GraphOptions, graph_from_checkpoint, manifest_of_graph


class TorchBackend:
    """The unfolded network in torch, on CUDA where there is a GPU, else on the CPU."""

    def __init__(self, checkpoint: Checkpoint, options: GraphOptions, threads: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model_from_checkpoint(checkpoint).to(self.device)
        self.options = options
        self.mean = torch.tensor(checkpoint.preprocess.mean, device=self.device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(checkpoint.preprocess.std, device=self.device).reshape(1, 3, 1, 1)
        torch.set_num_threads(threads)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 (B, H, W, 3) RGB → float32 (B, D)."""
        with torch.inference_mode(), exact_float32():  # by default cuDNN's convolutions compute in TF32
            images = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).float() / 255
            answer: NDArray[np.float32] = self.features((images - self.mean) / self.std).cpu().numpy()
        return answer

    def features(self, images: Tensor) -> Tensor:
        """Normalized images, float (B, 3, H, W), on the network's device → features (B, D)."""
        which = 1 if self.options.feature == "f_i" else 0
        features: Tensor = self.model(images)[which]
        if self.options.flip:
            features = (features + self.model(images.flip(3))[which]) / 2
        return torch.nn.functional.normalize(features) if self.options.normalize else features

    def describe(self) -> str:
        """Name, version, device and precision."""
        return f"torch {torch.__version__} on {self.device.type}, fp32"


def session_from_checkpoint(
    checkpoint: Checkpoint,
    options: GraphOptions | None = None,
    *,
    threads: int | None = None,
    depth: Depth = "refuse",
) -> Session:
    """Open a checkpoint as a session that answers with torch.

    Args:
        checkpoint: from ``load_checkpoint``.
        options: feature, flip and normalization; ``input`` does not matter here.
        threads: of torch on a CPU; default: the CPUs this process may use.
        depth: as in :class:`reidruntime.SessionOptions`.

    Raises:
        InputError: ``feature="f_i"`` for a network without a neck.
    """
    options = options or GraphOptions()
    graph = graph_from_checkpoint(checkpoint, replace(options, input="uint8"))
    threads = threads or default_threads()
    return Session(
        manifest_of_graph(graph), "torch", TorchBackend(checkpoint, graph.options, threads), threads, depth
    )
