"""One tree of errors; the command line turns each into its exit status.

ReidExportError
├── InputError            2   an argument or a file is not what the call needs
│   ├── CheckpointError   2   not a checkpoint, damaged, or of an unknown architecture
│   ├── ArtifactError     2   ONNX file, engine or manifest unreadable or unfit
│   ├── EngineError       2   TensorRT's parser or builder refuses a network
│   ├── ImageError        2   an image that cannot be read
│   └── DatasetError      2   a data set folder that is missing, misnamed or empty
├── ExportError           2   the exporter fails, or writes what it should not
├── NotInstalledError     3   a package or a device is missing
├── GpuError              3   CUDA or TensorRT fails at run time
├── ClusterError          3   a Ray cluster cannot be reached, or fails
├── ParityError           1   the exported file does not answer as its source does
├── PrecisionError        1   an engine does not compute in the wanted precision
├── ServerError           1   the Triton server does not start, ends, or is stopping
├── TrainingError         1   a loss or a gradient is not finite
└── StoppedError        130   a run was asked to stop, and saved itself
"""

from reidruntime.errors import (
    ArtifactError,
    GpuError,
    ImageError,
    InputError,
    NotInstalledError,
    ReidExportError,
)

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ClusterError",
    "DatasetError",
    "EngineError",
    "ExportError",
    "GpuError",
    "ImageError",
    "InputError",
    "NotInstalledError",
    "ParityError",
    "PrecisionError",
    "ReidExportError",
    "ServerError",
    "StoppedError",
    "TrainingError",
]


class CheckpointError(InputError):
    """A checkpoint cannot be read safely, is damaged, or holds no known architecture."""


class ClusterError(ReidExportError):
    """A Ray cluster cannot be reached, has no room for the run, or fails."""

    exit_status = 3


class DatasetError(InputError):
    """A data set folder is missing, misnamed, empty or inconsistent."""


class EngineError(InputError):
    """TensorRT's parser or builder refuses a network; the message holds all that it reported."""


class ExportError(ReidExportError):
    """The exporter fails, or writes what it should not: usually a version that is not supported."""


class ParityError(ReidExportError):
    """Two sessions that must answer alike do not."""

    exit_status = 1


class PrecisionError(ReidExportError):
    """A network or an engine does not compute in the wanted precision."""

    exit_status = 1


class ServerError(ReidExportError):
    """The Triton server does not start, ends by itself, or is stopping."""

    exit_status = 1


class TrainingError(ReidExportError):
    """Training cannot continue: a loss or a gradient is not finite."""

    exit_status = 1


class StoppedError(ReidExportError):
    """A run was asked to stop; it saved itself and can continue later."""

    exit_status = 130
