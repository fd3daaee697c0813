"""``reidexport embed``: image files in, one file of embeddings out."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from reidexport.cli import artifact_options as options
from reidexport.cli.json_file import JsonOption, write_json
from reidexport.embedding import EmbeddingRun, embed_to_file
from reidexport.image_paths import find_images
from reidexport.progress import progress_bar


def embed(
    artifact: options.ArtifactArgument,
    images: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders (searched deeply) and patterns.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: *.npz, *.parquet or *.gallery.")
    ],
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            help="At an image that cannot be read: stop, or skip it, name it, and exit with status 1."
        ),
    ] = "stop",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run of OUTPUT.")
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per run of the network.")] = None,
    backend: options.BackendOption = "auto",
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
    size: options.SizeOption = None,
    mean: options.MeanOption = None,
    std: options.StdOption = None,
    channel_order: options.ChannelOrderOption = None,
    layout: options.LayoutOption = None,
    resize: options.ResizeOption = None,
    json_file: JsonOption = None,
) -> None:
    """Embed images into a .npz or Parquet file, or into a gallery for reidexport search.

    Exit status: 0 every image embedded, 1 some skipped, 2 bad input, 3 something not installed, 130
    interrupted. After an interruption the finished part lies in OUTPUT.partial, and --resume goes on.
    """
    paths = find_images(images)
    with options.open_artifact(
        artifact,
        backend=backend,
        device=device,
        threads=threads,
        size=size,
        mean=mean,
        std=std,
        channel_order=channel_order,
        layout=layout,
        resize=resize,
    ) as session:
        typer.echo(session.description, err=True)
        try:
            with progress_bar("embedding", len(paths)) as progress:
                run = embed_to_file(
                    session,
                    paths,
                    output,
                    on_error=on_error,
                    resume=resume,
                    batch_size=batch,
                    progress=progress,
                )
        except KeyboardInterrupt:
            typer.echo(
                f"Interrupted. What is finished is in {output}.partial; go on with --resume.", err=True
            )
            raise typer.Exit(130) from None
    _report(run, json_file, artifact)


def _report(run: EmbeddingRun, json_file: Path | None, artifact: Path) -> None:
    if run.num_resumed:
        typer.echo(f"Took over {run.num_resumed} images from the interrupted run.", err=True)
    for _, reason in run.skipped:
        typer.echo(f"skipped {reason}", err=True)
    write_json(json_file, {"artifact": str(artifact), **asdict(run), "output": str(run.output)})
    speed = run.num_new / max(run.seconds, 1e-9)
    counts = f"{run.num_embedded} embeddings, {len(run.skipped)} skipped"
    typer.echo(f"{run.output}: {counts}, {speed:.0f} images/s")
    if run.skipped:
        raise typer.Exit(1)
