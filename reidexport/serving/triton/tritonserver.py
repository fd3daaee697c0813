"""The real Triton server that nvidia-pytriton carries, run as a process of its own on local ports."""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from reidruntime.tensorrt_library import first_gpu

from reidexport.errors import NotInstalledError
from reidexport.serving.triton.config import Ports

INSTALL = 'pip install "reidexport[serve,cpu]"'
_LOCAL = "127.0.0.1"
_EXIT_TIMEOUT_S = 30  # Triton's own, for what it is working on
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton and its Python processes exchange tensors
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


@dataclass(frozen=True)
class TritonProcess:
    """A started server and its ports on this machine."""

    process: subprocess.Popen[bytes]
    ports: Ports


@contextmanager
def tritonserver(server: Path, repository: Path) -> Iterator[TritonProcess]:
    """Start Triton on a model repository; at the end it finishes what it works on, and is stopped.

    It listens on free ports of 127.0.0.1, writes warnings and errors to standard error, and does not outlive this
    process. It gets no Ctrl-C of the terminal: that is for the caller to act upon.

    Args:
        server: from :func:`installed_server`.
        repository: the folder of models.

    Yields:
        The process, which may not be ready yet.

    Raises:
        NotInstalledError: this Python's shared library is missing.
    """
    ports = _free_ports()
    prefix = f"reidexport-{os.getpid()}-{secrets.token_hex(4)}"
    with TemporaryDirectory(prefix="reidexport-triton-") as backends:
        # The Python backend looks for the stub beside its library; the package keeps one for every version of Python.
        backend = Path(backends) / "python"
        backend.mkdir()
        for file in (*(server / "backends" / "python").glob("*.*"), _stub(server)):
            (backend / file.name).symlink_to(file)
        command = [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            *(f"--{protocol}-address={_LOCAL}" for protocol in Ports._fields),
            *(f"--{protocol}-port={port}" for protocol, port in ports._asdict().items()),
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
            "--log-info=0",
            *([] if first_gpu() else ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]),
        ]
        process = subprocess.Popen(  # noqa: S603
            command,
            env=_environment(server),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM),
        )
        try:
            yield TritonProcess(process, ports)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_TIMEOUT_S + 5)
            with suppress(ProcessLookupError):  # its Python processes may outlive a Triton that crashed
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for left in _SHARED_MEMORY.glob(f"{prefix}*"):  # by a server that crashed
                left.unlink(missing_ok=True)


def installed_server() -> Path:
    """The server's folder in nvidia-pytriton, without importing that package.

    Raises:
        NotInstalledError: it is missing, or has nothing for this version of Python.
    """
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalledError(f"nvidia-pytriton is not installed: {INSTALL}")
    server = Path(spec.submodule_search_locations[0]) / "tritonserver"
    if not _stub(server).is_file():
        raise NotInstalledError(
            f"nvidia-pytriton has no Triton server for Python {_PYTHON} here ({_stub(server)} is missing). "
            f"Install it again with a Python of 3.11 to 3.13: {INSTALL}"
        )
    return server


def _stub(server: Path) -> Path:
    """The program that runs Python models."""
    return server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"


def _environment(server: Path) -> dict[str, str]:
    """The stub embeds Python: it has to find its library, and the packages that are installed for this one."""
    libraries = (
        server.parents[1] / "nvidia_pytriton.libs",
        _libpython_folder(),
        os.environ.get("LD_LIBRARY_PATH"),
    )
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in libraries if path),
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def _libpython_folder() -> Path:
    """The folder of this Python's shared library."""
    name = f"libpython{_PYTHON}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR"))
    debian = folder / (sysconfig.get_config_var("MULTIARCH") or "")
    for place in (folder, debian):
        if (place / name).is_file():
            return place
    raise NotInstalledError(
        f"Triton runs Python models with {name}, which is not in {folder}. Install it (Debian: apt install "
        f"libpython{_PYTHON}), or use a Python that was built with --enable-shared."
    )


def _free_ports() -> Ports:
    """Free ports of this machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((_LOCAL, 0))) for _ in Ports._fields]
        return Ports(*(int(opened.getsockname()[1]) for opened in sockets))
