"""``reidexport serve``: an artifact behind HTTP and gRPC, on a Triton server of this machine."""

from typing import Annotated

import typer

from reidexport.cli import artifact_options as options


def serve(
    artifact: options.ArtifactArgument,
    name: Annotated[
        str | None, typer.Option(help="Of the model; the file's if left out.", show_default=False)
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anyone who reaches it may use the server.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8002,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images per run; the artifact's maximum or 32 if left out.", show_default=False
        ),
    ] = None,
    max_queue_delay_us: Annotated[
        int, typer.Option(min=0, help="How long a batch that is not full waits for more.")
    ] = 500,
    instances: Annotated[
        int, typer.Option(min=1, help="Batches answered at a time; they share the threads.")
    ] = 1,
    max_request_mib: Annotated[int, typer.Option(min=1, max=1024, help="Larger requests are refused.")] = 32,
    backend: options.BackendOption = "auto",
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
    size: options.SizeOption = None,
    mean: options.MeanOption = None,
    std: options.StdOption = None,
    channel_order: options.ChannelOrderOption = None,
    layout: options.LayoutOption = None,
    resize: options.ResizeOption = None,
) -> None:
    """Serve an artifact until Ctrl-C or SIGTERM: KServe's protocol, version 2, over HTTP and gRPC.

    Two models: NAME takes "images", uint8 pixels (N, height, width, 3); NAME_jpeg takes "jpeg", the bytes of image
    files. Requests that come together are answered in one run of the network. When asked to stop, it answers what it
    has accepted and refuses the rest; at a second Ctrl-C it ends at once.
    """
    manifest = options.parse_manifest(artifact, size, mean, std, channel_order, layout, resize)

    from reidexport.triton.config import Batching, model_name
    from reidexport.triton.serving import Address
    from reidexport.triton.serving import serve as serve_artifact

    num_answered = serve_artifact(
        artifact,
        name or model_name(artifact),
        address=Address(host, http_port, grpc_port, metrics_port),
        batching=Batching(max_batch, max_queue_delay_us),
        max_request_bytes=max_request_mib << 20,
        say=lambda line: typer.echo(line, err=True),
        manifest=manifest,
        backend=backend,
        device=device,
        threads=threads,
        instances=instances,
    )
    typer.echo(f"{num_answered} requests answered")
