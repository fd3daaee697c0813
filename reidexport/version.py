"""The one version of reidexport and reidruntime."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _version() -> str:
    """Of the installed package, or of a checkout that is not installed."""
    try:
        return version("reidexport")
    except PackageNotFoundError:
        pyproject = Path(__file__).parents[1] / "pyproject.toml"
        if not pyproject.is_file():
            raise
        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])


__version__ = _version()
