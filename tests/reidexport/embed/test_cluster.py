"""Bulk embedding on Ray: the same bits as one process, from anywhere, and nothing lost to a kill."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from reidruntime import SessionOptions, open_session
from reidruntime.backends import DeviceName

from reidexport.cli.embed import with_address
from reidexport.embed import cluster
from reidexport.embed.cluster import Pool, pool_for
from reidexport.errors import ClusterError
from tests.conftest import Run
from tests.standins.embedding_runs import Prefix, start_run, wait_for_parts
from tests.standins.image_sources import rows_of, write_images


@pytest.mark.parametrize(
    ("nodes", "device", "expected"),
    [
        ([{"CPU": 16.0, "GPU": 1.0}], "auto", Pool(1, 16, 1)),
        ([{"CPU": 128.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}], "auto", Pool(9, 8, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], "cuda", Pool(2, 1, 1)),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 4.0}], "cpu", Pool(20, 1, 0)),
        ([{"CPU": 16.0}], "auto", Pool(16, 1, 0)),
        ([{"CPU": 16.0}], "cuda", None),
    ],
)
def test_an_actor_reads_with_the_cores_of_its_gpu(
    nodes: list[dict[str, float]], device: DeviceName, expected: Pool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All CPUs of a node are shared out among its GPUs, so that every GPU of the cluster has room for an actor."""
    found = [{"Resources": resources, "Alive": True} for resources in nodes]
    monkeypatch.setattr(cluster, "import_ray", lambda: SimpleNamespace(nodes=lambda: found))
    if expected:
        assert pool_for(None, SessionOptions(device=device)) == expected
    else:
        with pytest.raises(ClusterError, match="No node of the cluster has a GPU and 1 CPUs for an actor"):
            pool_for(None, SessionOptions(device=device))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a.onnx --ray in -o out", ["--ray=local", "in"]),
        ("a.onnx in -o out --ray", ["--ray=local"]),
        ("a.onnx --ray auto in -o out", ["--ray", "auto"]),
        ("a.onnx --ray 10.0.0.1:6379 in -o out", ["--ray", "10.0.0.1:6379"]),
        ("a.onnx --ray=head:6379 in -o out", ["--ray=head:6379"]),
        ("a.onnx --ray s3://bucket/in -o out", ["--ray=local", "s3://bucket/in"]),
    ],
)
def test_ray_stands_with_and_without_an_address(words: str, expected: list[str]) -> None:
    """A word after --ray is its address only where it looks like one."""
    found = with_address(words.split())
    start = found.index(expected[0])
    assert found[start : start + len(expected)] == expected


def test_unfit_options_are_refused(run: Run, artifact: Path, tmp_path: Path) -> None:
    """Before Ray is started: columns that are not two names, and an address from outside of the cluster."""
    write_images(tmp_path / "in", 1)
    done = run("embed", artifact, tmp_path / "in", "--ray", "-o", tmp_path / "o", "--columns", "image")
    assert done.returncode == 2
    assert "expected two names, for example image,path" in done.stderr
    done = run("embed", artifact, tmp_path / "in", "-o", tmp_path / "o", "--ray", "ray://a:1")
    assert done.returncode == 2
    assert "run the command on a machine of the cluster" in done.stderr


def test_without_ray_the_extra_is_named(
    run: Run, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 3, what to install, and nothing written."""
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("embed", artifact, tmp_path, "-o", tmp_path / "out", "--ray")
    assert done.returncode == 3
    assert 'ray is not installed: pip install "reidexport[ray]"' in done.stderr
    assert not (tmp_path / "out").exists()


def actors_among(pids: Iterable[int]) -> list[int]:
    """Which of these processes are actors of the pool."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if b"ShardEmbedder" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def descendants(pid: int) -> list[int]:
    """All processes that a process started, and those that they started."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def check_kills(
    prefix: Prefix, ray: list[str], artifact: Path, folder: Path, pids: Callable[[int], list[int]]
) -> str:
    """Kill a worker, then the driver, then continue; returns the last run's stderr.

    Nothing may be lost, done twice or left over, and every bit must be that of a single process.
    """
    output, num_images = folder / "out", 300
    paths = write_images(folder / "in", num_images)
    driver = start_run(prefix, artifact, folder, "out", *ray)
    try:
        wait_for_parts(output, 10, driver)
        os.kill(actors_among(pids(driver.pid))[0], signal.SIGKILL)
        wait_for_parts(output, len(list(output.glob("part-*.parquet"))) + 40, driver)
        workers = actors_among(pids(driver.pid))
    finally:
        driver.kill()
        driver.communicate()
    deadline = time.monotonic() + 60
    while actors_among(workers):  # those of a driver that is gone end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    assert 50 <= len(finished) < num_images
    again = start_run(prefix, artifact, folder, "out", *ray, "--resume")
    stdout, stderr = again.communicate(timeout=180)
    assert again.returncode == 0, stderr
    assert f"{num_images} embeddings in {num_images} parts, 0 skipped" in stdout
    assert f"{len(finished)} images were finished by the interrupted run." in stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert {path.name for path in output.iterdir()} == {
        *("_plan.jsonl", "_errors"),
        *(f"part-{number:08d}.parquet" for number in range(num_images)),
    }
    with open_session(artifact, SessionOptions(backend="onnxruntime", threads=1)) as session:
        assert rows_of(output) == (paths, session.embed(paths, batch_size=1).tobytes())
    return stderr


def test_kills_lose_nothing(artifact: Path, tmp_path: Path) -> None:
    """A killed worker is replaced, a killed driver's run is continued, and Ray says nothing on the terminal."""
    stderr = check_kills([], ["--ray", "--actors", "1"], artifact, tmp_path, descendants)
    assert re.fullmatch(
        r"[\d.]+: ONNX Runtime [^\n]+\n\d+ images were finished by the interrupted run\.\n", stderr
    ), stderr


def test_a_bad_image_stops_a_cluster_or_is_skipped(run: Run, artifact: Path, tmp_path: Path) -> None:
    """As on one machine: the default stops, names the image and keeps the rest; skipped, the others make a file."""
    paths = write_images(tmp_path / "in", 6)
    Path(paths[4]).write_bytes(b"")
    start = ("embed", artifact, tmp_path / "in", "-o", tmp_path / "out.npz", "--ray", "--actors", "1")
    start += ("--batch", "2", "--shard-size", "2", "--backend", "onnxruntime")
    done = run(*start)
    assert (done.returncode, (tmp_path / "out.npz").exists()) == (2, False)
    assert "0004.jpg: the file is empty. Fix that" in done.stderr
    assert "skip bad images with --resume --on-error skip; 4 of 6 images are done." in done.stderr
    done = run(*start, "--resume", "--on-error", "skip")
    assert (done.returncode, sorted(path.name for path in tmp_path.iterdir())) == (
        1,
        ["a.onnx", "in", "out.npz"],
    )
    assert "4 images were finished by the interrupted run.\nskipped" in done.stderr
    assert "out.npz: 5 embeddings, 1 skipped" in done.stdout
    good = [*paths[:4], paths[5]]
    with open_session(artifact, SessionOptions(backend="onnxruntime", threads=1)) as session:
        assert rows_of(tmp_path / "out.npz") == (good, session.embed(good, batch_size=2).tobytes())


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Prefix, str]]:
    """A Ray cluster of two nodes in two network namespaces: how to run something on the first, and its address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2, to make network namespaces")
    token = secrets.token_hex(4)
    names = [f"reid-{token}-{number}" for number in (1, 2)]
    for variable, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", secrets.token_hex(16))):
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def start_node(number: int, *words: str) -> None:
        address = f"--node-ip-address=10.77.0.{number}"
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", address]
        ip("netns", "exec", names[number - 1], *start, f"--object-store-memory={100 << 20}", *words)

    with ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip(
                "link",
                "add",
                f"a{token}",
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                f"b{token}",
                "netns",
                names[1],
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        for number, (name, link) in enumerate(zip(names, (f"a{token}", f"b{token}"), strict=True), 1):
            stack.callback(kill_all, name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
        start_node(1, "--head", "--port=6399", "--include-dashboard=false", f"--temp-dir=/tmp/{names[0]}")
        stack.callback(shutil.rmtree, f"/tmp/{names[0]}", ignore_errors=True)
        start_node(2, "--address=10.77.0.1:6399")
        yield ["ip", "netns", "exec", names[0]], names[1]


def pids_in(namespace: str) -> list[int]:
    """The processes of a network namespace."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True)
    return [int(pid) for pid in listed.stdout.split()]


def kill_all(namespace: str) -> None:
    """End the processes of a network namespace."""
    while pids := pids_in(namespace):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_two_nodes_do_it_too(two_nodes: tuple[Prefix, str], artifact: Path, tmp_path: Path) -> None:
    """Two machines, as far as the network goes, share the work; kills on the second and of the driver lose nothing."""
    prefix, second = two_nodes
    stderr = check_kills(prefix, ["--ray", "10.77.0.1:6399"], artifact, tmp_path, lambda _: pids_in(second))
    assert "10.77.0.1: ONNX Runtime" in stderr
    assert "10.77.0.2: ONNX Runtime" in stderr
