"""The batch sizes that an engine is built for."""

from reidruntime.artifact.manifest import BatchProfile, Flavor
from reidruntime.tensorrt_library import Gpu, default_batch_profile

from reidexport.errors import InputError

_LARGEST_SMALL_BATCH, _BEST_SMALL_BATCH = 8, 4


def batch_profile_for(
    of_file: BatchProfile, wanted: BatchProfile | None, gpu: Gpu | None, name: str
) -> BatchProfile:
    """The batch profile to build for.

    Args:
        of_file: of the ONNX file; a static one leaves no choice.
        wanted: by the caller; None chooses what suits the GPU.
        gpu: the one that will run the engine; None where it is not known.
        name: what to call the file in messages.

    Raises:
        InputError: the file does not take the wanted batches, or they are not in order.
    """
    static = of_file.static
    if static is not None:
        if wanted is not None and {wanted.minimum, wanted.optimum, wanted.maximum} != {static}:
            raise InputError(
                f"{name} takes batches of exactly {static}, the profile asked for is {profile_text(wanted)}. Leave "
                "--batch-profile out, or export with --batch dynamic."
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
