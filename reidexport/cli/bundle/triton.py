"""``reidexport bundle triton``: a model repository for Triton Inference Server."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from reidexport.cli.artifact_options import BatchingOptions
from reidexport.cli.option_groups import with_option_groups
from reidexport.data.image_paths import find_images


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
) -> None:
    """Write a model repository: for each artifact the network, a decoder of image files, and both together.

    NAME_onnx or NAME_tensorrt takes the artifact's own input, NAME_…_jpeg the bytes of image files. The decoder runs in
    Triton's Python backend and needs this package there, without extras. Existing files are never written over.
    """
    from reidexport.serving.triton.bundle import write_repository
    from reidexport.serving.triton.config import Batching

    written = write_repository(
        artifacts,
        repository,
        device=device,
        instances=instances,
        batching=Batching(**asdict(batching)),
        image_paths=find_images(images or []),
    )
    for network, ensemble in written.items():
        typer.echo(f"{repository / network}, {repository / ensemble}")
    typer.echo(f"tritonserver --model-repository={repository.resolve()}", err=True)
