"""How an engine is to be built, and for which batch sizes; what excludes what."""

from dataclasses import dataclass
from pathlib import Path

from reidruntime.artifact.manifest import BatchProfile, Flavor, engine_manifest_path
from reidruntime.tensorrt_library import Gpu, default_batch_profile

from reidexport.errors import InputError
from reidexport.tensorrt.source import EngineSource

_LARGEST_SMALL_BATCH, _BEST_SMALL_BATCH = 8, 4


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    Attributes:
        flavor: "tensorrt", built and finished on the GPU of this machine, or "rtx": TensorRT for RTX, built on any
            machine and finished by the RTX GPU that loads it.
        batch_profile: smallest, best and largest batch; None uses the static batch of the file, or what suits the
            GPU, see ``reidruntime.tensorrt_library.default_batch_profile``; for an RTX engine 1, 8, 32.
        workspace_mib: how much device memory a layer may use for scratch; None leaves it to TensorRT.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to TensorRT.
        timing_cache: None uses ``default_timing_cache``. Native TensorRT only.
        version_compatible: let later versions of TensorRT load the engine too. Native only.
        hardware_compatible: let GPUs from Ampere on load it, at some cost of speed. Native only.
        strip_weights: leave the weights out of the engine; the runtime puts them in from the ONNX file beside it.
        allow_unproved_precision: accept convolutions whose precision TensorRT's inspector does not report; the manifest
            counts them as unproved. Native only.
    """

    flavor: Flavor = "tensorrt"
    batch_profile: BatchProfile | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    allow_unproved_precision: bool = False


def check_options(options: BuildOptions, source: EngineSource, path: Path) -> None:
    """Check that options, file and path of an engine fit each other.

    Raises:
        InputError: they do not.
    """
    if path.suffix not in (".engine", ".plan"):
        raise InputError(f"{path}: an engine's name ends in .engine or .plan")
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise InputError(f"workspace: expected at least 1 MiB, got {options.workspace_mib}")
    if options.optimization_level is not None and not 0 <= options.optimization_level <= 5:
        raise InputError(f"optimization level: expected 0 to 5, got {options.optimization_level}")
    native_only = {
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
        "--timing-cache": options.timing_cache is not None,
        "--allow-unproved-precision": options.allow_unproved_precision,
    }
    wrong = [name for name, given in native_only.items() if given]
    if options.flavor == "rtx" and wrong:
        raise InputError(
            f"{', '.join(wrong)}: for native TensorRT only. An RTX engine runs on every RTX GPU, with the "
            "version that built it."
        )
    if options.timing_cache is not None:
        taken = {each.resolve() for each in (source.path, path, engine_manifest_path(path))}
        if options.timing_cache.resolve() in taken:
            raise InputError(
                f"--timing-cache {options.timing_cache}: that is the file to build from, the engine or its manifest. "
                "Choose another file."
            )
    if options.strip_weights and not source.kept:
        raise InputError(
            f"--strip-weights: the runtime needs the {source.manifest.precision} ONNX file to put the weights back. "
            "Write it first (reidexport onnx, with --fp16 for FP16), then build from that file."
        )


def batch_profile_for(source: EngineSource, wanted: BatchProfile | None, gpu: Gpu | None) -> BatchProfile:
    """The batch profile to build for.

    Args:
        source: what to build from; a static file leaves no choice.
        wanted: by the caller; None chooses what suits the GPU.
        gpu: the one that will run the engine; None where it is not known.

    Raises:
        InputError: the file does not take the wanted batches, or they are not in order.
    """
    static = source.manifest.batch_profile.static
    if static is not None:
        if wanted is not None and {wanted.minimum, wanted.optimum, wanted.maximum} != {static}:
            raise InputError(
                f"{source.name} takes batches of exactly {static}, the profile asked for is {profile_text(wanted)}. "
                "Leave --batch-profile out, or export with --batch dynamic."
            )
        return BatchProfile(minimum=static, optimum=static, maximum=static)
    profile = wanted or default_batch_profile(gpu)
    if profile.optimum is None or profile.maximum is None:
        raise InputError(
            f"an engine needs a smallest, a best and a largest batch, got {profile_text(profile)}"
        )
    if not profile.minimum <= profile.optimum <= profile.maximum:
        raise InputError(
            f"batch profile {profile_text(profile)}: expected MIN <= OPT <= MAX, each at least 1"
        )
    return profile


def optimization_profiles(profile: BatchProfile, flavor: Flavor) -> list[BatchProfile]:
    """The optimization profiles of an engine.

    The first one takes every batch, as runtimes that know of one profile only use that one. TensorRT chooses the
    kernels of a profile for its best batch, so that an engine for large ones gets a second profile for a few images at
    once. An engine for TensorRT for RTX gets its kernels on the GPU that runs it.
    """
    optimum, smallest = profile.optimum or 1, profile.minimum
    if flavor == "rtx" or not smallest <= _LARGEST_SMALL_BATCH < optimum:
        return [profile]
    best = max(smallest, _BEST_SMALL_BATCH)
    return [profile, BatchProfile(minimum=smallest, optimum=best, maximum=_LARGEST_SMALL_BATCH)]


def profile_text(profile: BatchProfile) -> str:
    """As ``--batch-profile`` takes it."""
    return f"{profile.minimum}:{profile.optimum}:{profile.maximum}"
