"""Does a TensorRT engine fit this machine? Checked by its manifest before anything is deserialized."""

from pathlib import Path

from reidruntime.artifact.manifest import Engine, Manifest, file_sha256
from reidruntime.errors import ArtifactError
from reidruntime.tensorrt_library import Gpu, version_tuple

_FIRST_HARDWARE_COMPATIBLE = (8, 0)  # Ampere


def check_engine(
    manifest: Manifest, path: Path, tensorrt_version: str, gpu: Gpu, *, allow_host_code: bool = False
) -> Engine:
    """Compare version, GPU and driver of an engine with those of this machine, and the file with its manifest.

    Args:
        manifest: the one beside the engine.
        path: the engine.
        tensorrt_version: of the library that would load it.
        gpu: that would run it.
        allow_host_code: a version-compatible engine holds host code, which runs when it is loaded.

    Returns:
        The manifest's engine facts.

    Raises:
        ArtifactError: it does not fit; the message states what was expected and found, and what to rebuild.
    """
    engine = manifest.engine
    if engine is None:
        raise ArtifactError(f"{path}: its manifest is not that of an engine. Build it with reidexport trt.")
    rebuild = f"Build it again here: reidexport trt {engine.onnx_name} -o {path.name}"
    _check_version(engine, path, tensorrt_version, allow_host_code, rebuild)
    if engine.flavor == "tensorrt":
        _check_gpu(engine, path, gpu, rebuild)
        driver = version_tuple(gpu.driver_version)
        if driver and driver < version_tuple(engine.driver_version or ""):  # a container may hide it
            raise ArtifactError(
                f"{path}: built with driver {engine.driver_version}, this machine has the older "
                f"{gpu.driver_version}. Update the driver. {rebuild}"
            )
    found = file_sha256(path)
    if found != engine.plan_sha256:
        raise ArtifactError(
            f"{path}: not the engine that its manifest describes (sha256 expected {engine.plan_sha256[:12]}…, found "
            f"{found[:12]}…). Copy both files together. {rebuild}"
        )
    return engine


def _check_version(engine: Engine, path: Path, installed: str, allow_host_code: bool, rebuild: str) -> None:
    built, here = version_tuple(engine.tensorrt_version), version_tuple(installed)
    if installed != engine.tensorrt_version and (not engine.version_compatible or here < built):
        raise ArtifactError(
            f"{path}: built with TensorRT {engine.tensorrt_version}, installed is {installed}. {rebuild}"
        )
    if engine.version_compatible and not allow_host_code:
        raise ArtifactError(
            f"{path}: a version-compatible engine, which carries code that runs when it is loaded. Open it "
            "with SessionOptions(allow_host_code=True) if you trust the file."
        )


def _check_gpu(engine: Engine, path: Path, gpu: Gpu, rebuild: str) -> None:
    if engine.hardware_compatible:
        if version_tuple(gpu.compute_capability) < _FIRST_HARDWARE_COMPATIBLE:
            raise ArtifactError(
                f"{path}: for GPUs of compute capability 8.0 and up, this is {gpu.name} ({gpu.compute_capability}). "
                f"{rebuild}"
            )
        return
    expected, found = (engine.gpu_name, engine.compute_capability), (gpu.name, gpu.compute_capability)
    if expected != found:
        raise ArtifactError(
            f"{path}: built for {expected[0]} ({expected[1]}), this is {found[0]} ({found[1]}). {rebuild}, or with "
            "--hardware-compatible there."
        )
