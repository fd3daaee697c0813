"""The runtimes that open artifacts: TensorRT, ONNX Runtime with CUDA, TensorRT for RTX, and the lanes alone."""

from functools import partial
from importlib.util import find_spec
from typing import get_args

from reidruntime import open_session
from reidruntime.backends import BackendName, DeviceName
from reidruntime.backends.tensorrt import TensorRtBackend
from reidruntime.device_memory import MemoryName
from reidruntime.manifest import BatchProfile, Manifest
from reidruntime.session import Session
from reidruntime.tensorrt_library import Gpu, first_gpu

from benchmarks.gpu_check import answers
from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.growth import steady_memory
from benchmarks.gpu_check.network import (
    PRECISIONS,
    Precision,
    answers_of,
    checkpoint_of,
    images_of,
    onnx_of,
)
from benchmarks.gpu_check.outcome import StepFailedError, StepSkippedError, Values
from benchmarks.gpu_check.plans import check_plan
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speeds import measure_speeds

_THREADS = 4
_BUILD_S = 45.0


def check_onnxruntime(bench: Bench, settings: Settings) -> None:
    """ONNX Runtime's CUDA provider, and nothing that it could fall back to."""
    _check_onnx_backend(bench, settings, "ONNX Runtime", "onnxruntime")


def check_rtx(bench: Bench, settings: Settings) -> None:
    """TensorRT for RTX, on the cards that it is for."""
    _check_onnx_backend(bench, settings, "TensorRT for RTX", "tensorrt-rtx")


def check_tensorrt(bench: Bench, settings: Settings) -> None:
    """Plans of both precisions, built here, in the memory of every library that is installed."""
    for precision in PRECISIONS:
        subject = f"TensorRT {precision}"
        manifest = bench.opened(subject, _BUILD_S, partial(_built, settings, precision))
        if manifest is None:
            continue
        bench.check(subject, "precision is proved", 0, partial(_layers, manifest))
        memories: tuple[MemoryName, ...] = get_args(MemoryName) if precision == "fp16" else ("cuda-python",)
        for memory in memories:
            _check_opened_plan(bench, f"{subject}, {memory}", settings, manifest, precision, memory)


def check_lanes(bench: Bench, settings: Settings) -> None:
    """The runtime's lanes around torch's half network, where there is no TensorRT."""
    from benchmarks.gpu_check.torch_engine import torch_in_place_of_tensorrt, write_torch_plan
    from benchmarks.gpu_check.torch_networks import half_answer
    from reidexport.checkpoint import load_checkpoint
    from reidexport.graph import graph_from_checkpoint, manifest_of_graph

    if find_spec("tensorrt") is not None:
        raise StepSkippedError("TensorRT itself is installed, and its plans run in the lanes")
    gpu = first_gpu_of(settings)
    graph = graph_from_checkpoint(load_checkpoint(checkpoint_of(settings)))
    answer = half_answer(graph, settings.device)
    path = settings.file("fp16.engine")
    manifest = write_torch_plan(
        path, manifest_of_graph(graph, precision="fp16"), gpu, max(settings.batch_sizes)
    )
    for memory in get_args(MemoryName):
        with torch_in_place_of_tensorrt(answer, manifest, settings.device):
            _check_opened_plan(bench, f"lanes with torch, {memory}", settings, manifest, "fp16", memory)


def first_gpu_of(settings: Settings) -> Gpu:
    """The GPU, which the supervisor made sure of."""
    gpu = first_gpu()
    if gpu is None:
        raise StepSkippedError("there is no NVIDIA GPU (nvidia-smi)")
    return gpu


def _check_onnx_backend(bench: Bench, settings: Settings, name: str, backend: BackendName) -> None:
    for precision in PRECISIONS:
        subject = f"{name} {precision}"
        session = bench.opened(subject, 5, partial(_opened_onnx, settings, precision, backend))
        if session is not None:
            with session:
                _check_session(bench, subject, session, precision, settings)


def _check_session(
    bench: Bench, subject: str, session: Session, precision: Precision, settings: Settings
) -> None:
    images, expected = images_of(settings), answers_of(settings, precision)
    bench.check(subject, "parity", 5, lambda: answers.parity(session, images, expected))
    bench.check(subject, "batch consistency", 5, lambda: answers.consistency(session, images))
    bench.check(subject, "threads get their own answers", 5, lambda: answers.threads_agree(session, images))
    measure_speeds(bench, subject, session, settings)
    if precision == "fp16":
        bench.check(
            subject,
            "memory is steady",
            5,
            lambda: steady_memory(lambda: session.run(images[:1]), settings.growth_calls, bench.deadline),
        )


def _opened_onnx(settings: Settings, precision: Precision, backend: BackendName) -> Session:
    device: DeviceName = settings.device if backend == "onnxruntime" else "auto"
    return open_session(onnx_of(settings, precision), backend=backend, device=device, threads=_THREADS)


def _layers(manifest: Manifest) -> Values:
    """What the build has proved, which else would have failed: that every convolution has the plan's precision."""
    if manifest.engine is None or manifest.engine.layers.plan is None:
        raise StepFailedError("the manifest does not say what the plan's layers compute in")
    return manifest.engine.layers.model_dump()


def _built(settings: Settings, precision: Precision) -> Manifest:
    """Build a plan beside its ONNX file; what does not compute in its precision is an error of the build."""
    from reidexport.trt_build import BuildOptions, engine_from_onnx
    from reidexport.trt_source import prepared_source

    source = onnx_of(settings, precision)
    sizes = settings.batch_sizes
    profile = BatchProfile(minimum=1, optimum=sorted(sizes)[len(sizes) // 2], maximum=max(max(sizes), 8))
    messages: list[str] = []
    options = BuildOptions(batch_profile=profile, timing_cache=settings.file("timing.cache"))
    with prepared_source(source, None) as prepared:
        return engine_from_onnx(
            prepared, settings.file(f"{precision}.engine"), options=options, say=messages.append
        )


def _check_opened_plan(
    bench: Bench,
    subject: str,
    settings: Settings,
    manifest: Manifest,
    precision: Precision,
    memory: MemoryName,
) -> None:
    images = images_of(settings)
    expected = answers_of(settings, precision if settings.file(f"{precision}.npy").is_file() else "network")
    plan = settings.file(f"{precision}.engine")
    backend = bench.opened(subject, 5, partial(TensorRtBackend, plan, manifest, memory=memory))
    if backend is None:
        return
    with Session(manifest, "tensorrt", backend, _THREADS) as session:
        check_plan(bench, subject, backend, session, images, expected, settings, graphs=memory != "pycuda")
