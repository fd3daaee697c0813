"""What is to be checked, and with how much patience."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a group of steps needs to know.

    Attributes:
        folder: where the network, its reference answers and engines lie while the check runs.
        device: "cpu" runs what needs no GPU on the CPU, for the tests of the check itself.
        checkpoint: a real network; None: a seeded one.
        artifact: an ONNX file with a manifest, for the runtimes; None: exported from the network.
        backbone: of the seeded network, with BNNeck and a last stride of 1.
        height_px: of the seeded network's images.
        width_px: of the seeded network's images.
        batch_sizes: to measure.
        num_images: to compare answers on.
        seconds_per_speed: how long each speed is measured.
        growth_calls: after how many calls memory must be what it was.
        matrix_size: side of the matrices whose product gives the peak.
        num_train_pids: people in the trainer's batch, four images each.
    """

    folder: str
    device: Device = "cuda"
    checkpoint: str | None = None
    artifact: str | None = None
    backbone: str = "resnet50"
    height_px: int = 256
    width_px: int = 128
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128)
    num_images: int = 32
    seconds_per_speed: float = 1.0
    growth_calls: int = 10_000
    matrix_size: int = 8192
    num_train_pids: int = 16

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return Path(self.folder) / name


def quick(settings: Settings) -> Settings:
    """The same on a tiny network, in as little time as possible: does it run at all?"""
    return Settings(
        folder=settings.folder,
        device=settings.device,
        checkpoint=settings.checkpoint,
        artifact=settings.artifact,
        backbone="resnet18",
        height_px=64,
        width_px=32,
        batch_sizes=(1, 4),
        num_images=8,
        seconds_per_speed=0.1,
        growth_calls=200,
        matrix_size=1024,
        num_train_pids=4,
    )
