"""What is asked of a TensorRT plan in the runtime's lanes."""

from collections.abc import Callable

from reidruntime.backends.tensorrt import TensorRtBackend
from reidruntime.resize import Image8
from reidruntime.session import Features, Session

from benchmarks.gpu_check import answers
from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.growth import steady_memory
from benchmarks.gpu_check.outcome import StepFailedError, StepSkippedError, Values
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speeds import measure_speeds


def check_plan(
    bench: Bench,
    subject: str,
    backend: TensorRtBackend,
    session: Session,
    images: Image8,
    expected: Features,
    settings: Settings,
    *,
    graphs: bool = True,
) -> None:
    """Everything about one opened plan.

    Args:
        bench: where to.
        subject: how the plan is called.
        backend: of the session.
        session: around the backend.
        images: to compare on.
        expected: float32's answers to them.
        settings: how much to do.
        graphs: whether its memory can capture CUDA graphs.
    """
    largest = session.manifest.batch_profile.maximum or 1
    bench.check(subject, "parity", 5, lambda: answers.parity(session, images, expected))
    bench.check(subject, "batch consistency", 5, lambda: answers.consistency(session, images))
    bench.check(
        subject, "replays equal plain runs", 5, lambda: _replays(backend, session, images, largest, graphs)
    )
    bench.check(subject, "threads get their own answers", 5, lambda: answers.threads_agree(session, images))
    bench.check(
        subject, "tensors are answered without copies", 10, lambda: _tensors(session, images, settings)
    )
    answer = session.run_tensor if settings.device == "cuda" else None
    measure_speeds(bench, subject, session, settings, answer)
    bench.check(
        subject,
        "memory is steady",
        5,
        lambda: steady_memory(lambda: session.run(images[:1]), settings.growth_calls, bench.deadline),
    )


def _replays(
    backend: TensorRtBackend, session: Session, images: Image8, largest: int, graphs: bool
) -> Values:
    values = answers.replays_equal_plain_runs(session, images, largest)
    values["captured_batch_sizes"] = list(backend.graph_sizes)
    if graphs and not set(values["batch_sizes"]) <= set(backend.graph_sizes):
        raise StepFailedError(f"CUDA graphs of batch {backend.graph_sizes} only", values)
    return values


def _tensors(session: Session, images: Image8, settings: Settings) -> Values:
    """The same bits as from the session's own memory, and no copy between host and device while the network runs."""
    if settings.device == "cpu":
        raise StepSkippedError("tensors on a GPU need a GPU")
    import torch

    tensor = torch.from_numpy(images[:8]).to("cuda")
    expected = session.run(images[:8])
    for turn in range(3):
        found = session.run_tensor(tensor).cpu().numpy()
        answers.check_equal_bits(found, expected, f"turn {turn + 1}")
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        late = torch.empty_like(tensor)
        torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]  # the images come late in this stream: the network must wait for them
        late.copy_(tensor)
        features = session.run_tensor(late)
        found = features.cpu().numpy()
    answers.check_equal_bits(found, expected, "on another stream, behind work of its own")
    copies = _copies(lambda: session.run_tensor(tensor))
    if copies:
        raise StepFailedError(f"running on a tensor copies: {copies}", {"copies": copies})
    return {"copies": [], "bits": "equal"}


def _copies(work: Callable[[], object]) -> list[str]:
    """The copies between host and device that the GPU's profiler sees."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events() or ()]
    kernels = [event for event in profiler.events() or () if event.device_type.name == "CUDA"]
    if not kernels:
        raise StepSkippedError("the bits are equal, but the profiler sees nothing on this GPU (CUPTI)")
    return sorted({name for name in names if name.startswith(("Memcpy HtoD", "Memcpy DtoH"))})
