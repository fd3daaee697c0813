"""ONNX → TensorRT engine, strongly typed, with the precision proved before and after the build.

    ONNX file ─▶ parser ─▶ network ─▶ proof ─▶ builder ─▶ engine ─▶ inspector ─▶ proof ─▶ NAME.engine + NAME.engine.json

The engine is as TensorRT wrote it, so that trtexec and Triton load it; the manifest is a file beside it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from reidruntime.artifact.manifest import (
    BatchProfile,
    Engine,
    LayerCounts,
    Manifest,
    engine_manifest_path,
    file_sha256,
)
from reidruntime.tensorrt_library import Gpu, first_gpu, import_tensorrt, make_logger

from reidexport.errors import EngineError, NotInstalledError
from reidexport.files import replaced_when_whole
from reidexport.tensorrt.options import (
    BuildOptions,
    batch_profile_for,
    check_options,
    optimization_profiles,
    profile_text,
)
from reidexport.tensorrt.precision import (
    check_precision,
    check_whole_layers,
    count_kinds,
    count_precisions,
    layers_of_network,
    proved_layers,
)
from reidexport.tensorrt.source import EngineSource, FileLayers
from reidexport.tensorrt.timing_cache import default_timing_cache, timing_cache


def engine_from_onnx(
    source: EngineSource,
    path: str | Path,
    *,
    options: BuildOptions | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build an engine and its manifest; both appear only when the precision is proved.

    Args:
        source: from ``source.prepared_source``.
        path: where the engine goes; its manifest gets ``.json`` behind that name.
        options: how to build.
        log: called with every warning and error of TensorRT, and with what was chosen.

    Returns:
        The manifest beside the engine.

    Raises:
        InputError: the options do not fit the file or each other, or the path cannot be written.
        NotInstalledError: TensorRT, or the GPU that a native build needs, is missing.
        EngineError: the parser or the builder refuses the network.
        PrecisionError: a convolution does not compute in the file's precision, or cannot be proved to. Where the engine
            says so, its layers as TensorRT describes them are in a file beside ``path``, which the message names.
    """
    options, path = options or BuildOptions(), Path(path)
    # An engine of TensorRT for RTX is finished by the GPU that loads it.
    gpu = first_gpu() if options.flavor == "tensorrt" else None
    profile = batch_profile_for(source, options.batch_profile, gpu)
    check_options(options, source, path)
    trt = import_tensorrt(options.flavor)
    if options.flavor == "tensorrt" and gpu is None:
        raise NotInstalledError(
            "TensorRT builds on the GPU that will run the engine, and finds none here (nvidia-smi). Build on a machine "
            "with that GPU, or with --flavor rtx for RTX GPUs."
        )
    logger = make_logger(trt, log)  # the builder's objects must not outlive it
    with replaced_when_whole(path) as temporary:
        engine, layers = _build(trt, logger, source, profile, options, gpu, path, log)
        temporary.write_bytes(engine)
        del engine
        facts = Engine(
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
        )
        manifest = source.manifest.model_copy(update={"batch_profile": profile, "engine": facts})
        with replaced_when_whole(engine_manifest_path(path)) as beside:
            beside.write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _build(
    trt: Any,
    logger: Any,
    source: EngineSource,
    profile: BatchProfile,
    options: BuildOptions,
    gpu: Gpu | None,
    path: Path,
    log: Callable[[str], None],
) -> tuple[Any, LayerCounts]:
    """The engine's bytes, and the precisions of its layers, proved."""
    builder = trt.Builder(logger)
    # Needed on 10.x, where it is not the default, and ignored on 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source.path)):
        raise EngineError(_parser_failure(parser, logger.errors, source))
    precision, quantization = source.manifest.precision, source.manifest.quantization
    num_float = len(quantization.float_layers) if quantization else 0
    parsed = layers_of_network(network)
    file = FileLayers.of(source.path)
    check_precision(parsed, precision, "network", num_float, fp16_products=file.fp16_products)
    if precision == "fp16":
        check_whole_layers(parsed, file.layer_norms)
    profiles = optimization_profiles(profile, options.flavor)
    config = _builder_config(trt, builder, source, profiles, options)
    cache: AbstractContextManager[None] = nullcontext()
    if gpu is not None:
        named = options.timing_cache
        cache_file = named or default_timing_cache(trt.__version__, gpu)
        cache = timing_cache(cache_file, config, log, is_named=named is not None)
    with cache:
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineError(
                f"{source.name}: TensorRT {trt.__version__} could not build it:\n  "
                + ("\n  ".join(logger.errors) or "it gave no reason")
            )
    finished: dict[str, int] | None = None
    kinds = count_kinds(parsed)
    if options.flavor == "tensorrt":
        proved = proved_layers(
            _inspection(trt, logger, engine),
            parsed,
            precision,
            num_float * len(profiles),
            fp16_products=file.fp16_products,
            allow_unproved=options.allow_unproved_precision,
            described_in=path.with_name(path.name + ".layers.json"),
            log=log,
        )
        finished, kinds = count_precisions(proved), count_kinds(proved)
    return engine, LayerCounts(network=count_precisions(parsed), plan=finished, kinds=kinds)


def _builder_config(
    trt: Any,
    builder: Any,
    source: EngineSource,
    profiles: Sequence[BatchProfile],
    options: BuildOptions,
) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the inspector lists names only
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
        # Refitted with the very weights it was built with, an engine keeps optimizations that depend on them.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    images = source.manifest.input
    for each in profiles if images.shape[0] is None else ():
        shapes = builder.create_optimization_profile()
        sizes = (each.minimum, each.optimum, each.maximum)
        shapes.set_shape(images.name, *((batch, *images.shape[1:]) for batch in sizes))
        if config.add_optimization_profile(shapes) < 0:
            raise EngineError(f"{source.name}: TensorRT refuses the batch profile {profile_text(each)}")
    return config


def _inspection(trt: Any, logger: Any, engine: Any) -> str:
    """TensorRT's description of a finished engine, as JSON."""
    runtime = trt.Runtime(logger)
    # A version-compatible engine carries code of its own; this one was made a moment ago, here.
    runtime.engine_host_code_allowed = True
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise EngineError("TensorRT cannot load the engine it built:\n  " + "\n  ".join(logger.errors))
    inspector = loaded.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _parser_failure(parser: Any, errors: list[str], source: EngineSource) -> str:
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        place = f" (node {error.node_name()!r}, {error.node_operator()})" if error.node() >= 0 else ""
        reasons.append(error.desc() + place)
    reasons += [text for text in errors if not any(reason in text for reason in reasons)]
    return f"{source.name}: TensorRT's parser refuses it:\n  " + ("\n  ".join(reasons) or "it gave no reason")
