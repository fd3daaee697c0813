"""Does a manifest agree with its file, and an engine with this machine? Checked before any backend loads the file."""

from math import prod
from pathlib import Path

from reidruntime.artifact.manifest import Engine, Manifest, TensorSpec, file_sha256
from reidruntime.artifact.onnx_metadata import OnnxFile, OnnxTensor, Shape, shape_text
from reidruntime.errors import ArtifactError
from reidruntime.tensorrt_library import Gpu, version_tuple

_REMEDY = "Export the artifact again, or pass the facts that fit this file."
_NODES_NAMED = 3
_FIRST_HARDWARE_COMPATIBLE = (8, 0)  # Ampere


def check_manifest(manifest: Manifest, file: OnnxFile, path: Path) -> None:
    """Compare names, dtypes and shapes of the manifest with the file's, and its preprocessing with its input.

    Raises:
        ArtifactError: they disagree; the message states what was expected and found, and what to do.
    """
    _check_preprocess(manifest, path)
    if len(file.inputs) != 1:
        names = [tensor.name for tensor in file.inputs]
        raise ArtifactError(f"{path}: expected one input, found {names}. {_REMEDY}")
    _check_tensor("input", manifest.input, file.inputs, path)
    _check_tensor("output", manifest.output, file.outputs, path)
    feature_dim = prod(size or 0 for size in manifest.output.shape[1:])
    if feature_dim != manifest.architecture.feature_dim:
        raise ArtifactError(
            f"{path}: the manifest says {manifest.architecture.feature_dim} dimensions, "
            f"but its output has shape {shape_text(manifest.output.shape)}. {_REMEDY}"
        )


def check_external_data(file: OnnxFile, path: Path) -> None:
    """Check that the files which hold an ONNX file's weights are beside it, and whole.

    Raises:
        ArtifactError: one is not; the message states which is wanted, and where.
    """
    for location, size in file.external.items():
        wanted = path.parent / location
        found = wanted.stat().st_size if wanted.is_file() else None
        if found is None or found < size:
            state = "is missing" if found is None else f"is cut: expected {size} bytes or more, found {found}"
            raise ArtifactError(
                f"{path}: its weights are in another file, {wanted}, which {state}. Copy both files to the same "
                "folder, or export the network as one file (torch.onnx.export: external_data=False)."
            )


def check_inference_mode(file: OnnxFile, path: Path) -> None:
    """Check that no node of an ONNX file computes as in training.

    Raises:
        ArtifactError: some do; the message names them.
    """
    if file.training:
        named = ", ".join(file.training[:_NODES_NAMED])
        more = f" and {len(file.training) - _NODES_NAMED} more" if len(file.training) > _NODES_NAMED else ""
        raise ArtifactError(
            f"{path}: exported in training mode: {named}{more}. BatchNormalization then answers by the batch around an "
            "image, and Dropout at random. Call model.eval() and export the network again."
        )


def _check_preprocess(manifest: Manifest, path: Path) -> None:
    wanted = manifest.preprocess
    size = (wanted.height_px, wanted.width_px)
    expected = (*size, 3) if wanted.layout == "NHWC" else (3, *size)
    found = manifest.input.shape
    if len(found) != 4 or found[1:] != expected:
        raise ArtifactError(
            f"{path}: the manifest asks for {size[0]}x{size[1]} images in {wanted.layout}, so the input "
            f"must be {shape_text((None, *expected))}, but it says {shape_text(found)}. {_REMEDY}"
        )
    if found[0] is not None and manifest.batch_profile.static != found[0]:
        raise ArtifactError(
            f"{path}: the input has the static batch {found[0]}, but the manifest's batch profile says "
            f"{manifest.batch_profile.minimum} to {manifest.batch_profile.maximum or 'any'}. {_REMEDY}"
        )
    allowed = ("uint8",) if wanted.in_graph else ("float32", "float16")
    if manifest.input.dtype not in allowed:
        raise ArtifactError(
            f"{path}: normalization is {'in' if wanted.in_graph else 'not in'} the graph, so the input must "
            f"be {' or '.join(allowed)}, but the manifest says {manifest.input.dtype}. {_REMEDY}"
        )


def _check_tensor(role: str, spec: TensorSpec, tensors: tuple[OnnxTensor, ...], path: Path) -> None:
    found = {tensor.name: tensor for tensor in tensors}.get(spec.name)
    if found is None:
        names = ", ".join(repr(tensor.name) for tensor in tensors)
        raise ArtifactError(
            f"{path}: the manifest's {role} {spec.name!r} is not in the file, which has {names}. {_REMEDY}"
        )
    if found.dtype != spec.dtype or not fits(spec.shape, found.shape):
        raise ArtifactError(
            f"{path}: {role} {spec.name!r}: the manifest expects {spec.dtype} {shape_text(spec.shape)}, "
            f"the file has {found.dtype} {shape_text(found.shape)}. {_REMEDY}"
        )


def fits(expected: Shape, found: Shape | None) -> bool:
    """Equal where the file states a size; a batch that is dynamic in the manifest must be so in the file."""
    if found is None:
        return True
    return len(expected) == len(found) and all(
        size is None or size == wanted for wanted, size in zip(expected, found, strict=True)
    )


def check_engine(
    manifest: Manifest, path: Path, tensorrt_version: str, gpu: Gpu, *, allow_host_code: bool = False
) -> Engine:
    """Compare version, GPU and driver of an engine with those of this machine, and the file with its manifest.

    A version-compatible engine holds host code, which runs when it is loaded: it needs ``allow_host_code``.

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
    built_for = f"{engine.gpu_name} ({engine.compute_capability})"
    here = f"{gpu.name} ({gpu.compute_capability})"
    if engine.hardware_compatible:
        if version_tuple(gpu.compute_capability) < _FIRST_HARDWARE_COMPATIBLE:
            raise ArtifactError(
                f"{path}: for GPUs of compute capability 8.0 and up, this is {here}. {rebuild}"
            )
    elif built_for != here:
        raise ArtifactError(
            f"{path}: built for {built_for}, this is {here}. {rebuild}, or with --hardware-compatible there."
        )
