"""``reidexport bundle deepstream``: an artifact for DeepStream's tracker."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from reidexport.cli.artifact_options import ArtifactArgument, ForeignOptions
from reidexport.cli.option_groups import with_option_groups


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
    foreign: ForeignOptions,
) -> None:
    """Write the network and the tracker's ReID section, so that the tracker feeds the one as the other needs it.

    The tracker subtracts a mean per channel and multiplies by one number. A deviation per channel moves into the
    network, which is compared with the artifact before it appears.
    """
    from reidruntime.artifact.own_manifest import artifact_manifest

    from reidexport.serving.deepstream import write_deepstream_bundle

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
