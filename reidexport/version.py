"""The one version of reidexport and reidruntime."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("reidexport")
except PackageNotFoundError:  # a checkout that is not installed
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    if not pyproject.is_file():
        raise
    __version__ = str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])
