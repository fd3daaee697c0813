"""ONNX → TensorRT plan, strongly typed, with the precision proved before and after the build.

    ONNX file ─▶ parser ─▶ network ─▶ proof ─▶ builder ─▶ plan ─▶ inspector ─▶ proof ─▶ NAME.engine + NAME.engine.json

The plan is as TensorRT wrote it, so that trtexec and Triton load it; the manifest lies beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidruntime.artifact.manifest import (
    BatchProfile,
    Engine,
    Flavor,
    LayerCounts,
    Manifest,
    Precision,
    engine_manifest_path,
    file_sha256,
)
from reidruntime.tensorrt_library import Gpu, default_batch_profile, first_gpu, import_tensorrt, make_logger

from reidexport.errors import EngineError, InputError, NotInstalledError, PrecisionError
from reidexport.files import replaced_when_whole
from reidexport.tensorrt.precision import (
    UNPROVED,
    WeightedLayer,
    check_precision,
    count_precisions,
    layers_of_network,
    layers_of_plan,
)
from reidexport.tensorrt.source import EngineSource
from reidexport.tensorrt.timing_cache import default_timing_cache, load_timing_cache, save_timing_cache

_LARGEST_SMALL_BATCH, _BEST_SMALL_BATCH = 8, 4


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    Attributes:
        flavor: "tensorrt", built and finished on the GPU of this machine, or "rtx": TensorRT for RTX, built on any
            machine and finished by the RTX GPU that loads it.
        batch_profile: smallest, best and largest batch; None takes the static batch of the file, or what suits the
            GPU, see ``reidruntime.tensorrt_library.default_batch_profile``; for an RTX plan 1, 8, 32.
        workspace_mib: how much device memory a layer may use for scratch; None leaves it to TensorRT.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to TensorRT.
        timing_cache: None takes ``default_timing_cache``. Native TensorRT only.
        version_compatible: let later versions of TensorRT load the plan too. Native only.
        hardware_compatible: let GPUs from Ampere on load it, at some cost of speed. Native only.
        strip_weights: leave the weights out of the plan; the runtime puts them in from the ONNX file beside it.
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


@dataclass
class _Messages:
    """What TensorRT said; every message is passed on at once, errors are kept for the exception."""

    log: Callable[[str], None]
    errors: list[str] = field(default_factory=list)

    def __call__(self, message: str, is_error: bool) -> None:
        if is_error:
            self.errors.append(message)
        self.log(f"TensorRT {'error' if is_error else 'warning'}: {message}")


def engine_from_onnx(
    source: EngineSource,
    path: str | Path,
    *,
    options: BuildOptions | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build a plan and its manifest; both appear only when the precision is proved.

    Args:
        source: from ``trt_source.prepared_source``.
        path: where the plan goes; its manifest gets ``.json`` behind that name.
        options: how to build.
        log: called with every warning and error of TensorRT, and with what was chosen.

    Returns:
        The manifest beside the plan.

    Raises:
        InputError: the options do not fit the file or each other, or the path cannot be written.
        NotInstalledError: TensorRT, or the GPU that a native build needs, is not there.
        EngineError: the parser or the builder refuses the network.
        PrecisionError: a convolution does not compute in the file's precision, or cannot be proved to. Where the plan
            says so, its layers as TensorRT describes them are in a file beside ``path``, which the message names.
    """
    options, path = options or BuildOptions(), Path(path)
    # A plan of TensorRT for RTX is finished by the GPU that loads it.
    gpu = first_gpu() if options.flavor == "tensorrt" else None
    profile = _profile(source, options, gpu)
    _check_options(source, options, path)
    trt = import_tensorrt(options.flavor)
    if options.flavor == "tensorrt" and gpu is None:
        raise NotInstalledError(
            "TensorRT builds on the GPU that will run the plan, and there is none here (nvidia-smi). Build there, or "
            "with --flavor rtx for RTX GPUs."
        )
    messages = _Messages(log)
    # The builder's objects must not outlive the logger.
    logger = make_logger(trt, messages)
    with replaced_when_whole(path) as temporary:
        plan, layers = _build(trt, logger, messages, source, profile, options, gpu, path)
        temporary.write_bytes(plan)
        del plan
        manifest = source.manifest.model_copy(
            update={
                "batch_profile": profile,
                "engine": Engine(
                    flavor=options.flavor,
                    tensorrt_version=trt.__version__,
                    gpu_name=gpu.name if gpu else None,
                    compute_capability=gpu.compute_capability if gpu else None,
                    driver_version=gpu.driver_version if gpu else None,
                    onnx_name=source.name,
                    onnx_sha256=source.sha256,
                    plan_sha256=file_sha256(temporary),
                    version_compatible=options.version_compatible,
                    hardware_compatible=options.hardware_compatible,
                    weights_stripped=options.strip_weights,
                    layers=layers,
                ),
            }
        )
        with replaced_when_whole(engine_manifest_path(path)) as beside:
            beside.write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _build(
    trt: Any,
    logger: Any,
    messages: _Messages,
    source: EngineSource,
    profile: BatchProfile,
    options: BuildOptions,
    gpu: Gpu | None,
    path: Path,
) -> tuple[Any, LayerCounts]:
    """The plan's bytes, and the precisions of its layers, proved."""
    builder = trt.Builder(logger)
    # Needed on 10.x, where it is not the default, and ignored on 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.path)):
        raise EngineError(_parser_failure(parser, messages, source))
    precision = source.manifest.precision
    quantization = source.manifest.quantization
    kept_wide = len(quantization.float_layers) if quantization else 0
    parsed = layers_of_network(network, trt)
    check_precision(parsed, precision, "network", kept_wide)
    config = builder.create_builder_config()
    _configure(trt, builder, config, source, profile, options)
    cache = None
    if gpu is not None:
        cache = options.timing_cache or default_timing_cache(trt.__version__, gpu)
        load_timing_cache(cache, config, messages.log)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{source.name}: TensorRT {trt.__version__} could not build it:\n  "
            + ("\n  ".join(messages.errors) or "it gave no reason")
        )
    if cache is not None:
        save_timing_cache(cache, config)
    finished = None
    if options.flavor == "tensorrt":
        inspection = _inspection(trt, logger, plan, messages)
        kept_wide *= len(_profiles(profile, options.flavor))
        finished = _proved_layers(inspection, parsed, precision, kept_wide, options, path, messages.log)
    return plan, LayerCounts(
        network=count_precisions(parsed), plan=None if finished is None else count_precisions(finished)
    )


def _configure(
    trt: Any,
    builder: Any,
    config: Any,
    source: EngineSource,
    profile: BatchProfile,
    options: BuildOptions,
) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the inspector tells names only
    # Set by default: fp32 convolutions would be computed with 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        # Refitted with the very weights it was built with, a plan keeps optimizations that depend on them.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if source.manifest.input.shape[0] is None:
        row = source.manifest.input.shape[1:]
        for each in _profiles(profile, options.flavor):
            shapes = builder.create_optimization_profile()
            sizes = (each.minimum, each.optimum, each.maximum)
            shapes.set_shape(source.manifest.input.name, *((batch, *row) for batch in sizes))
            if config.add_optimization_profile(shapes) < 0:
                raise EngineError(f"{source.name}: TensorRT refuses the batch profile {_text(each)}")


def _profiles(profile: BatchProfile, flavor: Flavor) -> list[BatchProfile]:
    """The optimization profiles of a plan.

    The first one takes every batch, as runtimes that know of one profile only use that one. TensorRT chooses the
    kernels of a profile for its best batch, so that a plan for large ones gets a second profile for a few images at
    once. A plan for TensorRT for RTX gets its kernels on the GPU that runs it.
    """
    optimum, smallest = profile.optimum or 1, profile.minimum
    if flavor == "rtx" or not smallest <= _LARGEST_SMALL_BATCH < optimum:
        return [profile]
    best = max(smallest, _BEST_SMALL_BATCH)
    return [profile, BatchProfile(minimum=smallest, optimum=best, maximum=_LARGEST_SMALL_BATCH)]


def _proved_layers(
    inspection: str,
    parsed: Sequence[WeightedLayer],
    precision: Precision,
    num_float_convolutions: int,
    options: BuildOptions,
    path: Path,
    log: Callable[[str], None],
) -> list[WeightedLayer]:
    """The layers of a finished plan; an error of their precision has the inspector's text written beside ``path``."""
    layers = layers_of_plan(inspection, [layer.name for layer in parsed if layer.is_convolution])
    convolutions = [layer for layer in layers if layer.is_convolution]
    num_unproved = sum(layer.precision == UNPROVED for layer in convolutions)
    accept = options.allow_unproved_precision
    try:
        check_precision(layers, precision, "plan", num_float_convolutions, allow_unproved=accept)
    except PrecisionError as error:
        beside = path.with_name(path.name + ".layers.json")
        with replaced_when_whole(beside) as temporary:
            temporary.write_text(inspection)
        hint = " If it convinces you, build with --allow-unproved-precision." if num_unproved else ""
        raise PrecisionError(f"{error}\nWhat TensorRT says of every layer is in {beside}.{hint}") from error
    if accept and num_unproved:
        log(
            f"accepted without a proof of their precision: {num_unproved} of {len(convolutions)} convolutions of the "
            "plan"
        )
    return layers


def _inspection(trt: Any, logger: Any, plan: Any, messages: _Messages) -> str:
    """TensorRT's description of a finished plan, as JSON."""
    runtime = trt.Runtime(logger)
    # A version-compatible plan carries code of its own; this one was made a moment ago, here.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError("TensorRT cannot load the plan it built:\n  " + "\n  ".join(messages.errors))
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _parser_failure(parser: Any, messages: _Messages, source: EngineSource) -> str:
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        place = f" (node {error.node_name()!r}, {error.node_operator()})" if error.node() >= 0 else ""
        reasons.append(error.desc() + place)
    reasons += [text for text in messages.errors if not any(reason in text for reason in reasons)]
    return f"{source.name}: TensorRT's parser refuses it:\n  " + ("\n  ".join(reasons) or "it gave no reason")


def _profile(source: EngineSource, options: BuildOptions, gpu: Gpu | None) -> BatchProfile:
    """The batch profile to build for, checked against the file's input."""
    static, wanted = source.manifest.batch_profile.static, options.batch_profile
    if static is not None:
        if wanted is not None and {wanted.minimum, wanted.optimum, wanted.maximum} != {static}:
            raise InputError(
                f"{source.name} takes batches of exactly {static}, asked for was the profile {_text(wanted)}. Leave "
                "--batch-profile out, or export with --batch dynamic."
            )
        return BatchProfile(minimum=static, optimum=static, maximum=static)
    profile = wanted or default_batch_profile(gpu)
    if profile.optimum is None or profile.maximum is None:
        raise InputError(f"an engine needs a smallest, a best and a largest batch, got {_text(profile)}")
    if not profile.minimum <= profile.optimum <= profile.maximum:
        raise InputError(f"batch profile {_text(profile)}: expected MIN <= OPT <= MAX, each at least 1")
    return profile


def _check_options(source: EngineSource, options: BuildOptions, path: Path) -> None:
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
            f"{', '.join(wrong)}: for native TensorRT only. An RTX plan runs on every RTX GPU, with the version that "
            "built it."
        )
    if options.strip_weights and not source.kept:
        raise InputError(
            f"--strip-weights: the runtime needs the {source.manifest.precision} ONNX file to put the weights back. "
            f"Write it first (reidexport onnx, with --fp16 for half), then build from that file."
        )


def _text(profile: BatchProfile) -> str:
    return f"{profile.minimum}:{profile.optimum}:{profile.maximum}"
