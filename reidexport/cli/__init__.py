"""The command line: one file per command, each parses, calls one public function and prints.

Results go to stdout, progress and messages to stderr. Exit status: 0 done, 1 a gate failed, 2 bad input or usage,
3 something that is not installed or not there.
"""

import signal
import sys

# What brings a package, where it is not the extra ``export``.
_EXTRAS = {
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "jinja2": "report",
    "markupsafe": "report",
    "matplotlib": "report",
    "ray": "ray",
    "fsspec": "ray",
    "yaml": "cli",
    "tritonclient": "triton",
    "aiohttp": "serve,cpu",
    "grpc": "serve,cpu",
    "fastapi": "web",
    "starlette": "web",
    "uvicorn": "web",
}


def main() -> None:
    """Run the ``reidexport`` command."""
    try:
        from reidexport.cli.app import app
    except ModuleNotFoundError as error:
        print(f'reidexport: {error.name} is not installed: pip install "reidexport[cli]"', file=sys.stderr)
        sys.exit(3)
    from reidexport.errors import ReidExportError

    # Unwound like an exception, so that no half-written file stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except ReidExportError as error:
        print(f"reidexport: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        print(
            f"reidexport: {error.filename or 'the file system'}: {error.strerror or error}", file=sys.stderr
        )
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0], "export")
        print(
            f'reidexport: {error.name} is not installed: pip install "reidexport[{extra}]"', file=sys.stderr
        )
        sys.exit(3)
