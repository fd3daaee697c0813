"""Serve an artifact on this machine: Triton with this project's runtime inside, and a gateway in front of it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import ClientError, ClientSession
from reidruntime import Manifest, open_session
from reidruntime.backends import BackendName, DeviceName
from reidruntime.threads import default_threads

from reidexport.errors import InputError, ServerError
from reidexport.serving.triton.config import Batching, session_network
from reidexport.serving.triton.grpc_gateway import grpc_gateway
from reidexport.serving.triton.http_gateway import http_gateway
from reidexport.serving.triton.repository import warm_up_images, write_models
from reidexport.serving.triton.traffic import Traffic
from reidexport.serving.triton.tritonserver import TritonProcess, installed_server, tritonserver

_POLL_S = 0.1
_START_TIMEOUT_S = 300.0
_LINGER_S = 0.5  # so that clients which retry at once learn why they are refused
_FINISH_TIMEOUT_S = 60.0  # for the requests under way when the server is to stop


@dataclass(frozen=True)
class Address:
    """Where to listen; a port of 0 is any free one."""

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server answers.

    Attributes:
        address: where to listen.
        batching: how requests are gathered.
        max_request_bytes: larger requests are refused.
        backend: as for :func:`reidruntime.open_session`; so are ``device`` and ``threads``.
        device: see there.
        threads: see there; of each instance. Default: the CPUs that this process may use, shared by all.
        instances: how many batches are answered at a time, each in a process with a session of its own.
    """

    address: Address
    batching: Batching
    max_request_bytes: int
    backend: BackendName = "auto"
    device: DeviceName = "auto"
    threads: int | None = None
    instances: int = 1


def serve(
    artifact: Path,
    name: str,
    options: ServerOptions,
    *,
    log: Callable[[str], None],
    manifest: Manifest | None = None,
) -> int:
    """Serve an artifact as the models ``name`` (pixels) and ``name_jpeg`` until SIGTERM or Ctrl-C.

    Then new requests are refused, those that came before are answered, and the server ends; at a second signal at once.

    Args:
        artifact: an ONNX file, or a TensorRT engine with its manifest beside it.
        name: of the model.
        options: how it answers.
        log: called with a line for each thing that happens.
        manifest: of a file that carries none.

    Returns:
        How many requests were answered.

    Raises:
        ServerError: Triton does not start, or ends by itself.
        InputError: a port is taken, or the artifact does not take such large batches.
        NotInstalledError: Triton, the backend or the device is missing.
        ArtifactError: the artifact cannot be opened.
    """
    _check_ports(options.address)
    server = installed_server()
    threads = options.threads or max(default_threads() // options.instances, 1)
    # Opened here once, as an error in one of Triton's processes is only a line in its log.
    with open_session(
        artifact, backend=options.backend, device=options.device, threads=threads, manifest=manifest
    ) as session:
        facts = session.manifest
        log(session.description)
    network = session_network(
        name,
        facts,
        options.batching,
        artifact=artifact,
        backend=options.backend,
        device=options.device,
        threads=threads,
        instances=options.instances,
    )
    with TemporaryDirectory(prefix="reidexport-models-") as folder:
        write_models(Path(folder), network, facts, warm_up_images(), None)
        return asyncio.run(_serve(server, Path(folder), name, options, log))


def _check_ports(address: Address) -> None:
    """Before anything is loaded; raises InputError where one cannot be listened on."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    ports = {"http": address.http_port, "grpc": address.grpc_port, "metrics": address.metrics_port}
    for kind, port in ports.items():
        try:
            socket.create_server((address.host, port), family=family).close()
        except OSError as error:
            raise InputError(
                f"{address.host}:{port}: cannot listen there ({error.strerror}). "
                f"Choose another --{kind}-port or --host."
            ) from error


async def _serve(
    server: Path,
    repository: Path,
    name: str,
    options: ServerOptions,
    log: Callable[[str], None],
) -> int:
    traffic, stop = Traffic(), _Signals()
    address, max_request_bytes = options.address, options.max_request_bytes
    async with AsyncExitStack() as stack:
        triton = stack.enter_context(tritonserver(server, repository))
        if not await _until_ready(triton, stop):
            return 0
        http, grpc = f"http://127.0.0.1:{triton.http_port}", f"127.0.0.1:{triton.grpc_port}"
        metrics = f"http://127.0.0.1:{triton.metrics_port}/metrics"
        host = address.host
        ports = await stack.enter_async_context(
            http_gateway(
                host, address.http_port, address.metrics_port, http, metrics, max_request_bytes, traffic
            )
        )
        grpc_port = await stack.enter_async_context(
            grpc_gateway(host, address.grpc_port, grpc, max_request_bytes, traffic)
        )
        log(f"serving {name} and {name}_jpeg: http://{host}:{ports[0]}, gRPC {host}:{grpc_port}, "
            f"metrics http://{host}:{ports[1]}/metrics")  # fmt: skip
        while not stop.count and triton.process.poll() is None:
            await asyncio.sleep(_POLL_S)
        if stop.count:
            log("stopping: answering what was accepted")
            await _finish(traffic, triton, stop)
            await asyncio.sleep(_LINGER_S)
        else:
            raise ServerError(
                f"Triton ended by itself (status {triton.process.returncode}); see its messages."
            )
    return traffic.num_answered


class _Signals:
    """Counts SIGTERM and Ctrl-C."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._received)

    def _received(self) -> None:
        self.count += 1


async def _until_ready(triton: TritonProcess, stop: _Signals) -> bool:
    """Wait for the models to be loaded and warmed up; False when a signal comes before that."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_TIMEOUT_S
    async with ClientSession() as client:
        while not stop.count:
            if triton.process.poll() is not None:
                raise ServerError(
                    f"Triton did not start (status {triton.process.returncode}); see its messages."
                )
            if loop.time() > deadline:
                raise ServerError(f"Triton was not ready after {_START_TIMEOUT_S:.0f} s; see its messages.")
            try:
                async with client.get(f"http://127.0.0.1:{triton.http_port}/v2/health/ready") as answer:
                    if answer.status == 200:
                        return True
            except ClientError:
                pass  # it does not listen yet
            await asyncio.sleep(_POLL_S)
    return False


async def _finish(traffic: Traffic, triton: TritonProcess, stop: _Signals) -> None:
    """Wait until what is under way is answered, unless Triton ends or another signal comes."""
    finishing = asyncio.ensure_future(traffic.finish())
    signals, loop = stop.count, asyncio.get_running_loop()
    deadline = loop.time() + _FINISH_TIMEOUT_S
    while not finishing.done() and stop.count == signals and triton.process.poll() is None:
        if loop.time() > deadline:
            break
        await asyncio.wait([finishing], timeout=_POLL_S)
    finishing.cancel()
