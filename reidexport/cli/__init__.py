"""The command line: one file per command, each parses, calls one public function and prints.

Results go to stdout, progress and messages to stderr. Exit status: 0 done, 1 a gate failed, 2 bad input or usage,
3 something that is not installed or not there.
"""

import signal
import sys

# The packages that an extra brings; all others come with ``export``.
_EXTRAS = {
    "cli": ("yaml",),
    "cpu": ("onnxruntime", "openvino"),
    "report": ("jinja2", "markupsafe", "matplotlib"),
    "ray": ("ray", "fsspec"),
    "triton": ("tritonclient",),
    "serve,cpu": ("aiohttp", "grpc"),
    "web": ("fastapi", "starlette", "uvicorn"),
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
        return
    except ReidExportError as error:
        message, status = str(error), error.exit_status
    except OSError as error:
        message, status = f"{error.filename or 'the file system'}: {error.strerror or error}", 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), "export")
        message, status = f'{error.name} is not installed: pip install "reidexport[{extra}]"', 3
    print(f"reidexport: {message}", file=sys.stderr)
    sys.exit(status)
