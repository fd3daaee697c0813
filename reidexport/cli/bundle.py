"""``reidexport bundle``: what other programs need to run an artifact."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, log
from reidexport.cli.shared_options import (
    ArtifactArgument,
    BatchingOptions,
    CamerasOption,
    ForeignOptions,
    UnknownCameraOption,
)
from reidexport.data.image_paths import find_images
from reidexport.files import check_replaceable

bundle = typer.Typer(help="Write what other programs need to run an artifact.", no_args_is_help=True)


@bundle.command()
@with_option_groups
def deepstream(
    artifact: ArtifactArgument,
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="Where to write.")],
    tracker: Annotated[
        Literal["NvDeepSORT", "NvDCF"],
        Option(help="Whose configuration; NvDCF finds lost targets again by their embeddings."),
    ] = "NvDeepSORT",
    batch_size: Annotated[
        int | None, Option(min=1, help="Crops per run of the network; the file's own, or 100.")
    ] = None,
    installed_at: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="Absolute path of the folder on the machine that runs DeepStream; where it is written if left out.",
        ),
    ] = None,
    *,
    force: ForceOption = False,
    foreign: ForeignOptions,
) -> None:
    """Write the network and the tracker's ReID section, so that the tracker feeds the one as the other needs it.

    The tracker subtracts a mean per channel and multiplies by one number. A deviation per channel moves into the
    network, which is compared with the artifact before it appears.
    """
    from reidruntime.artifact.own_manifest import artifact_manifest

    from reidexport.serving.deepstream import bundle_paths, write_deepstream_bundle

    for path in bundle_paths(artifact, output):
        check_replaceable(path, force=force)
    config = write_deepstream_bundle(
        artifact,
        foreign.manifest(artifact) or artifact_manifest(artifact),
        output,
        tracker=tracker,
        batch_size=batch_size,
        installed_at=installed_at,
    )
    typer.echo(f"wrote {config}: the ReID section for {tracker}'s configuration")
    typer.echo(f"  and {artifact.stem}_deepstream.onnx, which answers as {artifact} does")


@bundle.command()
@with_option_groups
def triton(
    artifacts: Annotated[
        list[Path], Argument(metavar="ARTIFACT...", help="ONNX files and TensorRT engines.")
    ],
    repository: Annotated[Path, Option("--output", "-o", help="The folder to write.")],
    device: Annotated[
        Literal["cpu", "gpu"], Option(help="What runs ONNX files; engines run on GPUs.")
    ] = "cpu",
    instances: Annotated[int, Option(min=1, help="Copies of a network, on every GPU.")] = 1,
    *,
    batching: BatchingOptions,
    images: Annotated[
        list[str] | None, Option(metavar="PATH", help="Images to warm up with; people are drawn if left out.")
    ] = None,
    cameras: CamerasOption = None,
    unknown_camera: UnknownCameraOption = "refuse",
) -> None:
    """Write a model repository: for each artifact the network, a decoder of image files, and both together.

    NAME_onnx or NAME_tensorrt takes the artifact's own input, NAME_…_jpeg the bytes of image files. The decoder runs in
    Triton's Python backend and needs this package there, without extras. With --cameras, NAME_…_jpeg standardizes
    features by "camid", the number of each image's camera from 0; the network alone does not standardize, and
    NAME_…_cameras makes of its features what NAME_…_jpeg answers. Existing files are never written over.
    """
    from reidexport.serving.triton.repository import write_repository

    written = write_repository(
        artifacts,
        repository,
        device=device,
        instances=instances,
        batching=batching.options(),
        image_paths=find_images(images or [], log=log),
        cameras=cameras,
        unknown_camera=unknown_camera,
    )
    for models in written:
        typer.echo(", ".join(str(repository / name) for name in models if name))
        if models.cameras:
            typer.echo(f"  {models.jpeg} gives standardized features, {models.network} those of the network, which "
                       f"{models.cameras} standardizes")  # fmt: skip
        elif cameras:
            typer.echo(f"  {cameras} leaves features as they are")
    typer.echo(f"tritonserver --model-repository={repository.resolve()}", err=True)
