"""Serve an artifact on this machine: Triton with this project's runtime inside, and a gateway in front of it."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import ClientError, ClientSession
from reidruntime import Manifest, open_session
from reidruntime.threads import default_threads

from reidexport.errors import InputError, ServerError
from reidexport.serving.triton.config import ServerOptions, session_network
from reidexport.serving.triton.gateway import Traffic, gateway
from reidexport.serving.triton.repository import warm_up_images, write_models
from reidexport.serving.triton.tritonserver import TritonProcess, installed_server, tritonserver

_POLL_S = 0.1
_START_TIMEOUT_S = 300.0


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
        InputError: a port is taken, the artifact does not take such large batches, or ``options.session`` has memory
            or ``allow_host_code``, which do not reach Triton's processes.
        NotInstalledError: Triton, the backend or the device is missing.
        ArtifactError: the artifact cannot be opened, or the camera profile is not its own.
    """
    _check_ports(options)
    if options.session.memory or options.session.allow_host_code:
        raise InputError(
            "A server's sessions take a backend, a device and threads: leave out the other options."
        )
    threads = options.session.threads or max(default_threads() // options.instances, 1)
    options = replace(options, session=replace(options.session, threads=threads))
    # Opened here once, as an error in one of Triton's processes is only a line in its log.
    with open_session(artifact, options.session, manifest=manifest, cameras=options.cameras) as session:
        facts, camids = session.manifest, session.camids
        log(session.description)
        if camids:
            log(f"each image comes with the number of its camera, camid, from 0 ({options.cameras})")
    server = installed_server()
    network = session_network(name, facts, artifact, options, takes_camids=bool(camids))
    with TemporaryDirectory(prefix="reidexport-models-") as folder:
        write_models(Path(folder), network, facts, warm_up_images(), None, camids=camids)
        return asyncio.run(_serve(server, Path(folder), name, options, log))


def _check_ports(options: ServerOptions) -> None:
    """Before anything is loaded; raises InputError where one cannot be listened on."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    for protocol, port in options.ports._asdict().items():
        try:
            socket.create_server((options.host, port), family=family).close()
        except OSError as error:
            raise InputError(
                f"{options.host}:{port}: cannot listen there ({error.strerror}). "
                f"Choose another --{protocol}-port or --host."
            ) from error


async def _serve(
    server: Path, repository: Path, name: str, options: ServerOptions, log: Callable[[str], None]
) -> int:
    traffic, task, host = Traffic(), asyncio.current_task(), options.host
    assert task is not None  # noqa: S101 - for the type checker
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    status: int | None = None
    with tritonserver(server, repository) as triton, suppress(asyncio.CancelledError):
        await _until_ready(triton)
        async with gateway(triton, options, traffic) as ports:
            log(f"serving {name} and {name}_jpeg: http://{host}:{ports.http}, gRPC {host}:{ports.grpc}, "
                f"metrics http://{host}:{ports.metrics}/metrics")  # fmt: skip
            try:
                status = await asyncio.to_thread(triton.process.wait)
            except asyncio.CancelledError:
                log("stopping: answering what was accepted")
                raise
    if status is not None:
        raise ServerError(f"Triton ended by itself (status {status}); see its messages.")
    return traffic.num_answered


async def _until_ready(triton: TritonProcess) -> None:
    """Wait for the models to be loaded and warmed up."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    async with ClientSession() as client:
        while time.monotonic() < deadline:
            if (status := triton.process.poll()) is not None:
                raise ServerError(f"Triton did not start (status {status}); see its messages.")
            with suppress(ClientError):  # it does not listen yet
                async with client.get(f"http://127.0.0.1:{triton.ports.http}/v2/health/ready") as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(_POLL_S)
    raise ServerError(f"Triton was not ready after {_START_TIMEOUT_S:.0f} s; see its messages.")
