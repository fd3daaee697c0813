"""Lanes: batches beside each other, CUDA graphs and page-locked memory, on memory that is the host's."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
from reidruntime.artifact.manifest import TensorSpec
from reidruntime.backends import lanes as lanes_module
from reidruntime.backends.lanes import Lane, Lanes, Shape
from reidruntime.errors import GpuError, InputError

from tests.standins.host_memory import HostMemory, at

INPUT = TensorSpec(name="images", dtype="uint8", shape=(None, 4))
OUTPUT = TensorSpec(name="f_i", dtype="float32", shape=(None, 2))
LARGEST = 8


class Sums:
    """Sums of the first and the second half of each row; fails on rows that begin with 255."""

    def __init__(self, *, runs_before_graph: int = 1) -> None:
        self.runs_before_graph = runs_before_graph
        self.shapes: list[Shape] = []

    def new_state(self, lane: Lane) -> str:
        """Something to find again."""
        return "state"

    def enqueue(self, lane: Lane, shape: Shape) -> None:
        """Compute at once."""
        assert lane.state == "state"
        self.shapes.append(shape)
        images = at(lane.device_in, shape[0] * 4).reshape(shape)
        if images[0, 0] == 255:
            raise GpuError("the network fails")
        sums = images.reshape(shape[0], 2, 2).sum(2).astype(np.float32)
        at(lane.device_out, sums.nbytes)[:] = sums.reshape(-1).view(np.uint8)

    def capture(self, lane: Lane, shape: Shape) -> Callable[[], None] | None:
        """Compute, and keep how."""
        self.enqueue(lane, shape)
        return lane.memory.captured(lambda: self.enqueue(lane, shape))


def expected(batch: np.ndarray) -> np.ndarray:
    """What :class:`Sums` answers."""
    return batch.reshape(len(batch), 2, 2).sum(2).astype(np.float32)


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """A batch of small numbers."""
    return np.random.default_rng(seed).integers(0, 100, (count, 4), dtype=np.uint8)


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[HostMemory]:
    """Every memory that was opened: one for each lane, and one for page-locked arrays."""
    opened: list[HostMemory] = []

    def open_memory(name: str) -> HostMemory:
        opened.append(HostMemory(has_graphs=name != "pycuda"))
        return opened[-1]

    monkeypatch.setattr(lanes_module, "open_device_memory", open_memory)
    return opened


def opened_lanes(network: Sums, memory: str = "torch") -> Lanes:
    """Lanes for batches of up to eight."""
    return Lanes(network, INPUT, OUTPUT, largest_batch=LARGEST, memory=memory, name="a.onnx")  # type: ignore[arg-type]


def test_batches_under_way_get_their_own_answers(memories: list[HostMemory]) -> None:
    """Five batches started before the first is asked for: each answers its own rows, in a lane of its own."""
    lanes = opened_lanes(Sums())
    batches = [drawn(count, count) for count in (1, 8, 3, 8, 2)]
    answers = [lanes.submit(batch) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        found = answer()
        assert found.dtype == np.float32
        assert np.array_equal(found, expected(batch))
    assert len(memories) == 5
    again = [lanes.submit(batch) for batch in batches]
    assert len(memories) == 5
    assert all(np.array_equal(a(), expected(b)) for a, b in zip(again, batches, strict=True))


@pytest.mark.parametrize("runs", [0, 1])
def test_a_size_that_comes_again_has_a_graph(memories: list[HostMemory], runs: int) -> None:
    """After so many plain runs a batch size is captured, and the graph gives the same answers."""
    lanes = opened_lanes(Sums(runs_before_graph=runs))
    for turn in range(4):
        batch = drawn(3, turn)
        assert np.array_equal(lanes.submit(batch)(), expected(batch))
        assert lanes.graph_sizes == ((3,) if turn >= 2 * runs else ())


def test_memory_without_graphs_runs_plainly(memories: list[HostMemory]) -> None:
    """Where nothing can be captured the answers stay right, and capturing is not tried again."""
    lanes = opened_lanes(Sums(runs_before_graph=0), "pycuda")
    assert all(np.array_equal(lanes.submit(drawn(2, turn))(), expected(drawn(2, turn))) for turn in range(3))
    assert lanes.graph_sizes == ()
    assert not lanes.graphs_allowed


def test_a_padded_batch_answers_its_own_rows(memories: list[HostMemory]) -> None:
    """The network runs on the padded size, and what comes back is the batch's."""
    network = Sums()
    lanes = opened_lanes(network)
    assert np.array_equal(lanes.submit(drawn(3), padded=4)(), expected(drawn(3)))
    assert network.shapes == [(4, 4)]


def test_a_failure_gives_its_lane_back(memories: list[HostMemory]) -> None:
    """After failures the same lanes serve on."""
    lanes = opened_lanes(Sums())
    for _ in range(5):
        with pytest.raises(GpuError, match="the network fails"):
            lanes.submit(np.full((1, 4), 255, np.uint8))
    assert np.array_equal(lanes.submit(drawn(2))(), expected(drawn(2)))
    assert len(memories) == lanes_module.NUM_LANES


def test_page_locked_arrays_are_not_copied_on_the_host(memories: list[HostMemory]) -> None:
    """The GPU copies straight from a host array, also from its first rows; from other arrays by way of the lane's."""
    lanes = opened_lanes(Sums())
    array = lanes.host_array(5)
    assert (array.shape, array.dtype) == ((5, 4), np.uint8)
    array[:] = drawn(5)
    assert np.array_equal(lanes.submit(array[:3])(), expected(drawn(5)[:3]))
    assert np.array_equal(lanes.submit(drawn(5))(), expected(drawn(5)))
    sources = [address for memory in memories for address in memory.copied_in]
    assert sources[0] == array.ctypes.data
    assert sources[1] not in (array.ctypes.data, drawn(5).ctypes.data)


def test_page_locked_memory_serves_again_when_nobody_holds_it(memories: list[HostMemory]) -> None:
    """Neither while an array or a part of it is held, nor before the answer was asked for, and then it does."""
    lanes = opened_lanes(Sums())
    array = lanes.host_array(LARGEST)
    address, part = array.ctypes.data, array[:2]
    del array
    assert lanes.host_array(LARGEST).ctypes.data != address
    part[:] = drawn(2)
    answer = lanes.submit(part)
    del part
    gc.collect()
    others = [lanes.host_array(LARGEST) for _ in range(3)]
    assert address not in {other.ctypes.data for other in others}
    assert np.array_equal(answer(), expected(drawn(2)))
    del others
    assert address in {other.ctypes.data for other in [lanes.host_array(LARGEST) for _ in range(4)]}


def test_an_answer_is_not_read_from_memory_that_was_freed(memories: list[HostMemory]) -> None:
    """Fetching a batch's answer after the session was closed is an error."""
    lanes = opened_lanes(Sums())
    answer = lanes.submit(drawn(2))
    lanes.close()
    with pytest.raises(InputError, match=r"a\.onnx: the session was closed before the answer of this batch"):
        answer()


def test_close_gives_everything_back_but_what_is_held(memories: list[HostMemory]) -> None:
    """Lanes' memory is freed; page-locked memory is not, as long as somebody may write to it."""
    lanes = opened_lanes(Sums())
    held = lanes.host_array(2)
    lanes.close()
    assert [memory.is_closed for memory in memories] == [True, True, False]
    held[:] = 1
    lanes.host_array(2)[:] = 1  # ordinary memory, for a thread that still reads
    assert len(memories) == 3
    other = opened_lanes(Sums())
    other.host_array(2)
    other.close()
    assert all(memory.is_closed for memory in memories[3:])
