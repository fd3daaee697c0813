"""The options of every command that opens an artifact."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from reidruntime import Manifest, Session, manifest_for_foreign_onnx, manifest_from_onnx, open_session
from reidruntime.backends import BackendName, DeviceName
from reidruntime.manifest import ChannelOrder, Channels3, Layout, ResizeKernel

from reidexport.errors import InputError

_PANEL = "Facts about an ONNX file that carries no manifest"

ArtifactArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An ONNX file.")]
BackendOption = Annotated[BackendName, typer.Option(help="What runs the network; auto: the fastest one.")]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where it runs; auto: CUDA where it can be used.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of the network; all CPUs if left out.", show_default=False)
]
SizeOption = Annotated[str | None, typer.Option(metavar="HxW", help="Height and width in pixels.")]
MeanOption = Annotated[
    str | None, typer.Option(metavar="C,C,C", help="Mean of pixels in [0, 1].", rich_help_panel=_PANEL)
]
StdOption = Annotated[
    str | None,
    typer.Option(
        metavar="C,C,C",
        help="Deviation of pixels in [0, 1]; 1/255 for a network that takes 0-255.",
        rich_help_panel=_PANEL,
    ),
]
ChannelOrderOption = Annotated[
    ChannelOrder | None, typer.Option(help="Order of the channels; RGB if left out.", rich_help_panel=_PANEL)
]
LayoutOption = Annotated[
    Layout | None, typer.Option(help="Layout of the input; NCHW if left out.", rich_help_panel=_PANEL)
]
ResizeOption = Annotated[
    ResizeKernel | None,
    typer.Option(help="Resize kernel of the training code; bilinear if left out.", rich_help_panel=_PANEL),
]


def open_artifact(
    path: Path,
    *,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    threads: int | None = None,
    size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    channel_order: ChannelOrder | None = None,
    layout: Layout | None = None,
    resize: ResizeKernel | None = None,
) -> Session:
    """Open an artifact with the options above, as the user typed them.

    Raises:
        InputError: an option cannot be read, some of size, mean and std are missing, or the file has a
            manifest and facts were given too.
        ArtifactError: as :func:`reidruntime.open_session`; so are the other errors.
    """
    manifest = parse_manifest(path, size, mean, std, channel_order, layout, resize)
    return open_session(path, backend=backend, device=device, threads=threads, manifest=manifest)


def parse_manifest(
    path: Path,
    size: str | None,
    mean: str | None,
    std: str | None,
    channel_order: ChannelOrder | None,
    layout: Layout | None,
    resize: ResizeKernel | None,
) -> Manifest | None:
    """The manifest that the options above state, or None where none of them is given.

    Raises:
        InputError: an option cannot be read, some of size, mean and std are missing, or the file has a manifest.
    """
    facts = (size, mean, std, channel_order, layout, resize)
    if facts == (None,) * len(facts):
        return None
    if manifest_from_onnx(path):
        raise InputError(
            f"{path}: the file carries a manifest. "
            "Leave out --size --mean --std --channel-order --layout --resize."
        )
    if size is None or mean is None or std is None:
        given = {"--size": size, "--mean": mean, "--std": std}
        missing = " ".join(name for name, value in given.items() if value is None)
        raise InputError(f"{path}: the file carries no manifest; give {missing} too.")
    height_px, width_px = parse_size(size)
    return manifest_for_foreign_onnx(
        path,
        height_px=height_px,
        width_px=width_px,
        mean=_parse_channels("--mean", mean),
        std=_parse_channels("--std", std),
        channel_order=channel_order or "RGB",
        layout=layout or "NCHW",
        resize=resize or "bilinear",
    )


def parse_size(text: str) -> tuple[int, int]:
    """``"256x128"`` -> (256, 128), height first; raises InputError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise InputError(f"--size {text!r}: expected HEIGHTxWIDTH in pixels, for example 256x128.")
    return int(found.group(1)), int(found.group(2))


def parse_stride(value: int | None) -> Literal[1, 2] | None:
    """A ``--last-stride`` that the command line has checked to be 1 or 2."""
    return None if value is None else (1 if value == 1 else 2)


def _parse_channels(option: str, text: str) -> Channels3:
    """``"0.485,0.456,0.406"``, or one number for all three; fractions such as 1/255 are numbers."""
    try:
        values = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text!r}: {error}. Expected three numbers: 0.485,0.456,0.406") from error
    if len(values) not in (1, 3) or (option == "--std" and min(values) <= 0):
        raise InputError(f"{option} {text!r}: expected three numbers, positive for --std.")
    return cast(Channels3, tuple(values if len(values) == 3 else values * 3))
