"""``reidexport adapt``: a checkpoint and unlabeled crops of a site → an ONNX file and its camera profile."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from reidruntime.artifact.camera_profile import camera_profile_path
from typer import Argument, Option

from reidexport.cli.onnx import GraphChoices, PrecisionOptions
from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, JsonOption, log, text_table
from reidexport.cli.shared_options import CheckpointOptions, DepthOption, PixelOptions
from reidexport.errors import InputError
from reidexport.files import check_replaceable
from reidexport.progress import progress_bar
from reidexport.records.reading import write_record

if TYPE_CHECKING:
    from reidexport.records.adaptation import AdaptationRecord, CameraReport


@dataclass(frozen=True)
class SiteOptions:
    """What is adapted, where the site's crops are not to decide."""

    mix: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            help="The site's share in the BatchNorm statistics, 0 for none; if left out, up to a half by how far the "
            "crops are from those of the training.",
        ),
    ] = None
    standardize: Annotated[
        bool | None,
        Option(
            help="Whether the camera profile is applied; if left out, where cameras make up enough of the features' "
            "variance."
        ),
    ] = None
    per_camera: Annotated[
        bool, Option("--per-camera", help="Also write a network for each camera, NAME-c1.onnx and so on.")
    ] = False
    ignore_cameras: Annotated[
        bool, Option("--ignore-cameras", help="Treat all crops as those of one camera.")
    ] = False
    depth: DepthOption = "refuse"


@with_option_groups
def adapt(  # noqa: PLR0913 - groups of options
    checkpoint: Annotated[Path, Argument(help="Checkpoint of any known project.")],
    crops: Annotated[
        Path,
        Argument(
            metavar="CROPS",
            help="Unlabeled crops of the site, 256 of each camera: a folder, with cameras in the names "
            "(<track>_c<camera>_…) or a folder for each; or a list, CSV or Parquet, with the columns path and camera.",
        ),
    ],
    output: Annotated[
        Path, Option("-o", "--output", metavar="NAME.onnx", help="The file to write; the profile beside it.")
    ],
    *,
    site: SiteOptions,
    graph: GraphChoices,
    precision: PrecisionOptions,
    opset: Annotated[int, Option(help="Of ONNX: 11 to 25, INT8 from 13 on.")] = 18,
    force: ForceOption = False,
    pixels: PixelOptions,
    stated: CheckpointOptions,
    json_file: JsonOption = None,
) -> None:
    """Adapt a checkpoint to the cameras of a site, without labels or training, and say whether that is needed.

    Writes NAME.onnx and NAME.cameras.json. Where the crops are like those of the training, the network stays as it is,
    and the profile changes nothing.
    """
    from reidexport.adaptation.adapt import AdaptationOptions, camera_file
    from reidexport.adaptation.adapt import adapt as adapt_checkpoint
    from reidexport.adaptation.crops import find_site_crops
    from reidexport.checkpoint.loading import load_checkpoint
    from reidexport.export.graph import GraphOptions
    from reidexport.memory import keep_freed_memory

    if output.suffix != ".onnx":
        raise InputError(f"{output}: expected a name that ends in .onnx.")
    chosen, choices = precision.chosen(), stated.choices(pixels)
    for path in (output, camera_profile_path(output)):
        check_replaceable(path, force=force)
    keep_freed_memory()
    loaded = load_checkpoint(checkpoint, choices)
    log(f"{checkpoint}: {loaded.summary}")
    for line in loaded.fact_lines:
        log(f"  {line}")
    found_crops = find_site_crops(crops, ignore_cameras=site.ignore_cameras, log=log)
    for camid in found_crops.cameras if site.per_camera else ():
        check_replaceable(camera_file(output, camid), force=force)
    found = adapt_checkpoint(
        loaded,
        found_crops,
        output,
        AdaptationOptions(
            mix=site.mix,
            standardize=site.standardize,
            per_camera=site.per_camera,
            graph=GraphOptions(**asdict(graph)),
            precision=chosen,
            target=precision.target or "cpu",
            opset=opset,
            depth=site.depth,
        ),
        log=log,
        progress_bar=progress_bar,
    ).model_copy(update={"checkpoint": str(checkpoint), "crops": str(crops)})
    _print(found)
    write_record(json_file, found)


def _print(found: "AdaptationRecord") -> None:
    from reidexport.adaptation.adapt import camera_file

    rows = [["camera", "crops", "stem", "neck", "all", "own mix"]]
    rows += [_row(camera) for camera in (*found.cameras, found.site)]
    print("how far the crops are from what the BatchNorms recorded in training (0: alike)")
    print(text_table(rows))
    if found.camera_share is not None:
        print(f"variance of the features that lies between cameras: {found.camera_share:.1%}")
    if found.pairs:
        separations = ", ".join(f"{name} {value:.2f}" for name, value in found.pairs.separations.items())
        threshold = found.pairs.threshold
        print(
            f"tracks of the site, {found.pairs.num_genuine} pairs of one and {found.pairs.num_impostor} of two people: "
            f"separation (d') {separations}"
        )
        print(
            f"threshold {threshold.threshold:.4f} ({threshold.confidence:.0%}: {threshold.low:.4f} to "
            f"{threshold.high:.4f}): {threshold.fpr:.0%} of two people at one time pass it, and {threshold.tpr:.1%} of "
            "one track"
        )
    kept = "adapted" if found.mix else "as it was"
    own = [str(camera_file(Path(found.artifact), camid)) for camid in found.own_networks]
    print(f"wrote {', '.join([found.artifact, *own])} ({kept}) and {found.profile} in {found.seconds:.1f} s")
    for line in found.advice:
        print(f"  {line}")
    for warning in found.warnings:
        log(f"warning: {warning}")


def _row(camera: "CameraReport") -> list[str]:
    name = "all" if camera.camid is None else str(camera.camid + 1)
    far = camera.divergence
    figures = (far.stem, far.neck, far.mean) if far else (None, None, None)
    shown = ["" if value is None else f"{value:.4f}" for value in figures]
    return [
        f"{name} {camera.name}" if camera.name else name,
        str(camera.num_crops),
        *shown,
        "" if camera.mix is None else f"{camera.mix:.2f}",
    ]
