"""``reidexport serve``: an artifact behind HTTP and gRPC, on a Triton server of this machine."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer import Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import log
from reidexport.cli.shared_options import ArtifactArgument, BatchingOptions, ForeignOptions, RunOptions


@dataclass(frozen=True)
class AddressOptions:
    """Where the server listens."""

    host: Annotated[str, Option(help="Address to listen on. Anyone who reaches it may use the server.")] = (
        "127.0.0.1"
    )
    http_port: Annotated[int, Option(min=0, max=65535, help="0: any free one.")] = 8000
    grpc_port: Annotated[int, Option(min=0, max=65535, help="0: any free one.")] = 8001
    metrics_port: Annotated[int, Option(min=0, max=65535, help="0: any free one.")] = 8002


@with_option_groups
def serve(
    artifact: ArtifactArgument,
    name: Annotated[str | None, Option(help="Of the model; the file's if left out.")] = None,
    *,
    address: AddressOptions,
    batching: BatchingOptions,
    instances: Annotated[int, Option(min=1, help="Batches answered at a time; they share the threads.")] = 1,
    max_request_mib: Annotated[int, Option(min=1, max=1024, help="Larger requests are refused.")] = 32,
    run: RunOptions,
    foreign: ForeignOptions,
) -> None:
    """Serve an artifact until Ctrl-C or SIGTERM: KServe's protocol, version 2, over HTTP and gRPC.

    Two models: NAME takes "images", uint8 pixels (N, height, width, 3); NAME_jpeg takes "jpeg", the bytes of image
    files. With --cameras, each image comes with the number of its camera, from 0: "camid", int32 (N, 1). Requests that
    come together are answered in one run of the network. When asked to stop, it answers what it has accepted and
    refuses the rest; at a second Ctrl-C it ends at once.
    """
    manifest = foreign.manifest(artifact)

    from reidexport.serving.triton.config import Ports, ServerOptions, model_name
    from reidexport.serving.triton.serving import serve as serve_artifact

    options = ServerOptions(
        host=address.host,
        ports=Ports(address.http_port, address.grpc_port, address.metrics_port),
        max_request_bytes=max_request_mib << 20,
        batching=batching.options(),
        instances=instances,
        session=run.options(),
        cameras=run.cameras,
    )
    num_answered = serve_artifact(artifact, name or model_name(artifact), options, log=log, manifest=manifest)
    typer.echo(f"{num_answered} requests answered")
