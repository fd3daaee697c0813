"""The one version of reidexport and reidruntime."""

from importlib.metadata import version

__version__ = version("reidexport")
