"""``--images DIR --strict``: test on real crops what is assumed of a checkpoint, and print what was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from reidruntime.artifact.manifest import Origin
from reidruntime.images.depth import Depth
from typer import Option

from reidexport.cli.output import log, text_table
from reidexport.cli.shared_options import DepthOption
from reidexport.errors import InputError

if TYPE_CHECKING:
    from reidexport.checkpoint.loading import Checkpoint
    from reidexport.records.inspection import Evidence, Fit

_MOST_SHOWN = 8

StrictOption = Annotated[
    bool, Option("--strict", help="Exit with status 1 where the images speak against what is assumed.")
]


@dataclass(frozen=True)
class EvidenceOptions:
    """Whether to test what is assumed of a checkpoint."""

    images: Annotated[
        Path | None,
        Option(
            metavar="DIR", help="Real crops, 256 suffice: test on them what is assumed of the checkpoint."
        ),
    ] = None
    strict: StrictOption = False
    depth: DepthOption = "refuse"


def tested(
    checkpoint: "Checkpoint", images: Path | None, depth: Depth
) -> "tuple[Checkpoint, Evidence | None]":
    """A checkpoint whose assumptions were tested on a folder of images, and the evidence, printed on stderr.

    Args:
        checkpoint: as it is taken to be.
        images: a folder; None: nothing is tested.
        depth: what becomes of images of more than 8 bits a channel.

    Raises:
        InputError: there are too few images, or none; or the network has no BatchNorm.
        ImageError: an image cannot be read.
    """
    if images is None:
        return checkpoint, None
    if set(checkpoint.origins.values()) == {"read"}:
        log(f"{checkpoint.name} tells everything: nothing is assumed that images could test")
        return checkpoint, None
    from reidexport.data.image_paths import find_images
    from reidexport.evaluation.evidence import check_assumptions, read_crops
    from reidexport.progress import progress_bar

    crops = read_crops(find_images([images], log=log), depth)
    checkpoint, evidence = check_assumptions(checkpoint, crops, progress_bar)
    for line in evidence_lines(evidence, images):
        log(line)
    return checkpoint, evidence


def check_strict(strict: bool, images: Path | None) -> None:
    """Raise InputError where nothing can be tested of which --strict could judge."""
    if strict and images is None:
        raise InputError(
            "--strict judges what images show of a checkpoint: pass --images DIR and a checkpoint."
        )


def exit_where_strict(strict: bool, evidence: "Evidence | None") -> None:
    """End the program with status 1 where warnings were asked to count."""
    if strict and evidence and evidence.warnings:
        raise typer.Exit(1)


_UNTESTED = ("weights", "camera", "camera_weight", "unit_parts")  # by images


def assumed_text(origins: Mapping[str, Origin]) -> str:
    """What is assumed of a checkpoint on both sides of a comparison; empty where nothing is that images can test."""
    assumed = [name for name, origin in origins.items() if origin == "assumed" and name not in _UNTESTED]
    return f"the same on both sides, so not compared: {', '.join(assumed)}" if assumed else ""


def evidence_lines(evidence: "Evidence", images: Path) -> list[str]:
    """The nearest configurations as a table, and the warnings."""
    shown = evidence.fits[:_MOST_SHOWN]
    shown += tuple(fit for fit in evidence.fits[_MOST_SHOWN:] if not fit.changed)
    rows = [["", "images", "all", "stem", "neck"], *map(_row, shown)]
    lines = [
        f"what the BatchNorms recorded against what they measure on {evidence.num_images} images of {images}: "
        f"divergence of the {len(shown)} nearest of {len(evidence.fits)} configurations",
        text_table(rows),
    ]
    return lines + [f"warning: {warning}" for warning in evidence.warnings]


def _row(fit: "Fit") -> list[str]:
    figures = [f"{value:.4g}" if value is not None else "" for value in (fit.divergence, fit.stem, fit.neck)]
    return ["; ".join(fit.changed) or "as assumed", str(fit.num_images), *figures]
