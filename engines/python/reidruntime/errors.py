"""The root of every error that reidexport and reidruntime raise on purpose, and the runtime's part of the tree.

The whole tree is drawn in ``reidexport/errors.py``.
"""

_LONGEST = 20_000


class ReidExportError(Exception):
    """Base of all errors meant for the user: the message says what failed, what was expected, what to do.

    ``exit_status`` is what the command line returns for it.
    """

    exit_status = 2

    def __str__(self) -> str:
        """The message; of one that quotes a damaged file at length, the beginning and the end."""
        text, half = super().__str__(), _LONGEST // 2
        return text if len(text) <= _LONGEST else f"{text[:half]} […] {text[-half:]}"


class InputError(ReidExportError):
    """An argument or a file is not what the call needs."""


class ArtifactError(InputError):
    """An artifact or its manifest cannot be read, or does not fit this machine or call."""


class ImageError(InputError):
    """An image cannot be read, or does not have the form that the artifact takes."""


class NotInstalledError(ReidExportError):
    """A package or a device that the call needs is missing."""

    exit_status = 3


class GpuError(ReidExportError):
    """CUDA or TensorRT fails at run time, usually for lack of device memory."""

    exit_status = 3
