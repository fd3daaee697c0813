"""Bulk embedding on Ray: the same bits as one process, from anywhere, and nothing lost to a kill."""

import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from reidruntime import EncodedImage, open_session
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.backends import DeviceName

from reidexport.cli.embed import with_address
from reidexport.embed.cluster import cluster
from reidexport.embed.cluster.cluster import Pool, pool_for
from reidexport.embed.cluster.reading import read_ahead, read_shard
from reidexport.embed.cluster.sources import shards_of
from reidexport.embed.cluster.worker import Job, ShardEmbedder, embed_shard
from reidexport.embed.files import read_gallery
from reidexport.embed.plan import PLAN_NAME, Columns, Shard, make_plan, part_path, read_errors
from reidexport.errors import ClusterError, ImageError, InputError, NotInstalledError
from tests import ROOT
from tests.conftest import Run
from tests.standins.runtime_models import write_artifact

COLUMNS = Columns()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small network."""
    return write_artifact(tmp_path / "a.onnx")


def jpeg(seed: int) -> bytes:
    """A small JPEG of noise."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def write_images(folder: Path, count: int) -> list[str]:
    """``count`` JPEG files, named in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index:04d}.jpg").write_bytes(jpeg(index))
    return sorted(map(str, folder.iterdir()))


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar of these members."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def contents(shard: Shard, columns: Columns = COLUMNS) -> dict[str, bytes | str]:
    """The images of a shard: their bytes, or why there are none."""
    found: dict[str, bytes | str] = {}
    for name, image in read_shard(shard, Path(), columns):
        if isinstance(image, EncodedImage):
            found[name] = image.data
        else:
            assert isinstance(image, ImageError)
            found[name] = str(image)
    return found


def rows_of(path: Path) -> tuple[list[str], bytes]:
    """Paths and the bits of the embeddings of a file or a folder."""
    gallery = read_gallery(path)
    return list(gallery.paths), b"".join(np.asarray(part).tobytes() for part in gallery.parts)


def job_for(artifact: Path, output: Path, plan_sha256: str) -> Job:
    """A job for one thread on the CPU."""
    return Job(
        output=output,
        plan_sha256=plan_sha256,
        folder=Path(),
        columns=COLUMNS,
        artifact=artifact,
        manifest=None,
        manifest_sha256=artifact_manifest(artifact).sha256,
        backend="auto",
        device="cpu",
        batch_size=None,
    )


# Sources and plans


def test_sources_become_the_same_shards_every_time(tmp_path: Path) -> None:
    """Images by number, each tar whole, Parquet files between row groups; each file once, in order."""
    images = write_images(tmp_path / "in", 5)
    tar = write_tar(tmp_path / "in" / "x.tar", {"a.jpg": jpeg(0)})
    table = pa.table({"image": [jpeg(i) for i in range(7)], "path": [f"{i}.jpg" for i in range(7)]})
    pq.write_table(table, tmp_path / "in" / "x.parquet", row_group_size=2)
    sources = [images[3], str(tmp_path / "in"), f"{tmp_path}/in/*.jpg"]
    shards = list(shards_of(sources, 3, COLUMNS))
    assert shards == list(shards_of(sources, 3, COLUMNS))
    in_order = [images[3], *images[:3], images[4]]
    parquet = [str(tmp_path / "in" / "x.parquet")]
    assert shards == [
        Shard("images", in_order[:3]),
        Shard("images", in_order[3:]),
        Shard("tar", [str(tar)]),
        Shard("parquet", parquet, [0, 1]),
        Shard("parquet", parquet, [2, 3]),
    ]


def test_unfit_sources_are_named(tmp_path: Path) -> None:
    """Nothing there, no such protocol, a package that is missing, and columns that a file does not have."""
    with pytest.raises(InputError, match=r"nothing there whose name ends in one of \.bmp"):
        list(shards_of([f"file://{tmp_path}"], 3, COLUMNS))
    with pytest.raises(InputError, match=r"no such file or folder"):
        list(shards_of([f"{tmp_path}/none"], 3, COLUMNS))
    with pytest.raises(InputError, match=r"nowhere://a: Protocol not known: nowhere"):
        list(shards_of(["nowhere://a"], 3, COLUMNS))
    with pytest.raises(NotInstalledError, match=r"s3://a: Install s3fs.*every node needs it"):
        list(shards_of(["s3://a"], 3, COLUMNS))
    pq.write_table(pa.table({"jpg": [b""], "key": [""]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'image', only jpg, key\. .*--columns IMAGE,NAME"):
        list(shards_of([f"{tmp_path}/a.parquet"], 3, COLUMNS))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"a\.parquet: not a Parquet file, or damaged"):
        list(shards_of([f"{tmp_path}/a.parquet"], 3, COLUMNS))


def test_a_plan_is_gone_on_with_only_as_it_was(tmp_path: Path) -> None:
    """A second run needs --resume, the same artifact and the same shards; a folder of other things stays."""
    output, shards = tmp_path / "out", [Shard("images", ["a.jpg", "b.jpg"]), Shard("images", ["c.jpg"])]
    plan = partial(make_plan, output, manifest_sha256="1", columns=COLUMNS)
    first = plan(shards, resume=False)
    assert first.unfinished() == [0, 1]
    part_path(output, 0).touch()
    again = plan(shards, resume=True)
    assert (again.sha256, again.offsets, again.unfinished()) == (first.sha256, first.offsets, [1])
    before = (output / PLAN_NAME).read_bytes()
    with pytest.raises(InputError, match=r"holds a run already\. Continue it with --resume, or delete"):
        plan(shards, resume=False)
    for other in (shards[:1], [*shards, shards[0]], [shards[1], shards[0]]):
        with pytest.raises(InputError, match="was of other images or of another --shard-size"):
            plan(other, resume=True)
    with pytest.raises(InputError, match="used another artifact or other columns"):
        make_plan(output, shards, manifest_sha256="2", columns=COLUMNS, resume=True)
    assert (output / PLAN_NAME).read_bytes() == before
    with pytest.raises(InputError, match="is there, and no folder of embeddings"):
        make_plan(tmp_path, shards, manifest_sha256="1", columns=COLUMNS, resume=True)


# Reading


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_are_read_from_end_to_end(tmp_path: Path, mode: str) -> None:
    """Members with an image's suffix, under the tar's name; captions, folders and names in other codes do no harm."""
    members = {"./a/1.jpg": jpeg(1), "a/1.json": b"{}", "a/2.JPG": b"", "\udcff.png": b"x"}
    path = write_tar(tmp_path / "x.tar", members, mode)
    assert contents(Shard("tar", [str(path)])) == {
        f"{path}/a/1.jpg": jpeg(1),
        f"{path}/a/2.JPG": b"",
        f"{path}/\\udcff.png": b"x",
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_tar_loses_no_image_silently(tmp_path: Path, mode: str) -> None:
    """What is before the damage is read; the rest is told, wherever the cut or the wrong byte is."""
    members = {f"{index}.jpg": jpeg(index) for index in range(4)}
    whole = write_tar(tmp_path / "x.tar", members, mode).read_bytes()
    end = (
        len(whole) - 1
        if mode == "w:gz"
        else 4 * 512 + sum(-(-len(data) // 512) for data in members.values()) * 512
    )
    cuts = range(0, end, 512) if mode == "w" else [end // 3, end // 2]
    for cut in cuts:
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        found = contents(Shard("tar", [str(tmp_path / "x.tar")]))
        assert "the tar is damaged" in str(found.pop(str(tmp_path / "x.tar"))), cut
        assert all(members[Path(name).name] == data for name, data in found.items())
    if mode == "w":
        header = 512 + -(-len(members["0.jpg"]) // 512) * 512
        (tmp_path / "x.tar").write_bytes(whole[:header] + b"\x01" * 512 + whole[header + 512 :])
        found = contents(Shard("tar", [str(tmp_path / "x.tar")]))
        assert "the tar is damaged (invalid header)" in str(found.pop(str(tmp_path / "x.tar")))
        assert list(found) == [f"{tmp_path}/x.tar/0.jpg"]


def test_parquet_rows_of_structs_and_of_nothing(tmp_path: Path) -> None:
    """Dots lead into structs, as Hugging Face writes them; rows without bytes or a name are told."""
    path = str(tmp_path / "x.parquet")
    rows = [
        {"bytes": jpeg(0), "path": "0.jpg"},
        {"bytes": None, "path": "1.jpg"},
        {"bytes": b"x", "path": None},
    ]
    pq.write_table(pa.table({"image": rows, "pid": [1, 2, 3]}), path)
    columns = Columns("image.bytes", "image.path")
    (shard,) = shards_of([path], 10, columns)
    found = contents(shard, columns)
    assert found["0.jpg"] == jpeg(0)
    assert "1.jpg: in" in str(found["1.jpg"])
    assert "expected the bytes of an image, got NoneType" in str(found["1.jpg"])
    assert "an image's name is None, expected text" in str(found[path])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's address, and the folder that it serves; what is named ``broken`` fails inside the server."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "broken" in self.path:
                self.send_error(500)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "www").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "www")) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", tmp_path / "www"
        httpd.shutdown()
        thread.join()


def test_urls_are_listed_and_read(server: tuple[str, Path]) -> None:
    """Folders, files, tars and Parquet files behind HTTP; a file that has gone is told, a server's error is raised."""
    url, folder = server
    write_images(folder / "crops", 70)
    write_tar(folder / "crops" / "x.tar", {"a.jpg": jpeg(0)})
    pq.write_table(pa.table({"image": [jpeg(1)], "path": ["1.jpg"]}), folder / "crops" / "x.parquet")
    images, tar, parquet = shards_of([f"{url}/crops/"], 100, COLUMNS)
    assert list(images.paths) == [f"{url}/crops/{index:04d}.jpg" for index in range(70)]
    (folder / "crops" / "0001.jpg").unlink()
    found = contents(images)
    assert list(found) == list(images.paths)
    assert found[f"{url}/crops/0069.jpg"] == jpeg(69)
    assert "0001.jpg: cannot be read (there is no such file)" in str(found[f"{url}/crops/0001.jpg"])
    assert contents(tar) == {f"{url}/crops/x.tar/a.jpg": jpeg(0)}
    assert contents(parquet) == {"1.jpg": jpeg(1)}
    with pytest.raises(OSError, match=r"broken\.jpg: cannot be read .*500"):
        contents(Shard("images", [f"{url}/broken.jpg"]))


def test_names_in_urls_are_no_patterns(tmp_path: Path) -> None:
    """An image called a[1].jpg is read, not looked for."""
    (tmp_path / "a[1].jpg").write_bytes(b"x")
    url = f"file://{tmp_path}/a[1].jpg"
    (shard,) = shards_of([url], 10, COLUMNS)
    assert contents(shard) == {url: b"x"}


def test_reading_ahead_is_bounded() -> None:
    """However long the source and slow the reader, no more than three chunks are taken from it too early."""
    source = count()
    items = read_ahead(source)
    assert list(islice(items, 1000)) == list(range(1000))
    del items
    assert next(source) <= 1000 + 3 * 64


# An actor, without Ray


def test_a_shard_is_embedded_as_by_a_session(artifact: Path, tmp_path: Path) -> None:
    """Its part holds what the session answers; bad images are in the table of errors; done again, nothing changes."""
    paths = write_images(tmp_path / "in", 5)
    Path(paths[1]).write_bytes(b"x")
    Path(paths[2]).unlink()
    (tmp_path / "out" / "_errors").mkdir(parents=True)
    job = job_for(artifact, tmp_path / "out", "")
    with open_session(artifact, threads=1) as session:
        assert embed_shard(session, job, 7, Shard("images", paths)) == (3, 2)
        good = [paths[0], *paths[3:]]
        assert rows_of(part_path(tmp_path / "out", 7)) == (good, session.embed(good).tobytes())
        before = part_path(tmp_path / "out", 7).stat()
        assert embed_shard(session, job, 7, Shard("images", paths)) == (3, 2)
        assert part_path(tmp_path / "out", 7).stat() == before
    (bad, reason), (missing, why) = read_errors(tmp_path / "out")
    assert (bad, missing) == (paths[1], paths[2])
    assert "not an image" in reason
    assert "cannot be read (No such file" in why


def test_a_node_that_sees_other_files_stops_the_run(artifact: Path, tmp_path: Path) -> None:
    """A folder, a plan or an artifact that is not there, or another, is told, and no part is written."""
    paths = write_images(tmp_path / "in", 2)
    output, sha256 = tmp_path / "out", artifact_manifest(artifact).sha256
    shards = [Shard("images", paths), Shard("tar", [f"{tmp_path}/x.tar"])]
    plan = make_plan(output, shards, manifest_sha256=sha256, columns=COLUMNS, resume=False)
    job = job_for(artifact, output, plan.sha256)

    def told(job: Job) -> str:
        row = ShardEmbedder(job, threads=1)({"offset": np.array(plan.offsets[:1])})
        assert row["error"] == ["InputError"]
        return str(row["message"][0])

    assert "a node does not see what was planned there" in told(replace(job, plan_sha256="0"))
    assert "a node has another file there" in told(replace(job, manifest_sha256="0"))
    with open_session(artifact, threads=1) as session:
        with pytest.raises(InputError, match=r"x\.tar: .* finds no such file"):
            embed_shard(session, job, 1, shards[1])
        shutil.rmtree(tmp_path / "in")
        with pytest.raises(InputError, match=r"in: .* sees no such folder"):
            embed_shard(session, job, 0, shards[0])
    assert plan.unfinished() == [0, 1]


# The command


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
        assert pool_for(None, None, "auto", device) == expected
    else:
        with pytest.raises(ClusterError, match="No node of the cluster has a GPU and 1 CPUs for an actor"):
            pool_for(None, None, "auto", device)


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
    """Before Ray is started: a file for a folder, a rule that does not hold, columns that are no two names."""
    write_images(tmp_path / "in", 1)
    start = ("embed", artifact, tmp_path / "in", "--ray", "-o")
    for more, told in (
        ([tmp_path / "o.parquet"], "a run on Ray writes a folder"),
        ([tmp_path / "o", "--on-error", "stop"], "leave out --on-error stop"),
        ([tmp_path / "o", "--columns", "image"], "expected two names, for example image,path"),
    ):
        done = run(*start, *more)
        assert done.returncode == 2
        assert told in done.stderr
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


def test_an_unfinished_folder_is_no_gallery(tmp_path: Path) -> None:
    """Searching half of the images would be silently wrong."""
    make_plan(tmp_path / "o", [Shard("images", ["a"])], manifest_sha256="", columns=COLUMNS, resume=False)
    with pytest.raises(
        InputError, match=r"1 of 1 shards are not embedded yet\. Finish the run with --resume"
    ):
        read_gallery(tmp_path / "o")


# Kills

Prefix = list[str]


def start_run(prefix: Prefix, artifact: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """``reidexport embed`` with a shard for every image of ``folder/in``, into ``folder/out``."""
    code = "from reidexport.cli import main; main()"
    words = ["embed", str(artifact), str(folder / "in"), "-o", str(folder / "out"), "--batch", "1"]
    words += ["--backend", "onnxruntime", "--shard-size", "1"]
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'engines' / 'python'}"},
    )


def wait_for_parts(output: Path, num_parts: int, driver: subprocess.Popen[str]) -> None:
    """Until so many parts are there."""
    deadline = time.monotonic() + 120
    while len(list(output.glob("part-*.parquet"))) < num_parts:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def actors_among(pids: Iterable[int]) -> list[int]:
    """Which of these processes are actors of the pool."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
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
    """Kill a worker, then the driver, then go on; returns what the last run told on stderr.

    Nothing may be lost, done twice or left over, and every bit must be that of a single process.
    """
    output, num_images = folder / "out", 300
    paths = write_images(folder / "in", num_images)
    driver = start_run(prefix, artifact, folder, *ray)
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
    finished = {path: path.stat() for path in output.glob("part-*.parquet")}
    assert 50 <= len(finished) < num_images
    again = start_run(prefix, artifact, folder, *ray, "--resume")
    stdout, stderr = again.communicate(timeout=180)
    assert again.returncode == 0, stderr
    assert f"{num_images} embeddings in {num_images} parts, 0 skipped" in stdout
    assert f"{len(finished)} of {num_images} shards were finished before." in stderr
    assert {path: path.stat() for path in finished} == finished
    assert {path.name for path in output.iterdir()} == {
        *("_plan.jsonl", "_errors"),
        *(f"part-{number:08d}.parquet" for number in range(num_images)),
    }
    with open_session(artifact, backend="onnxruntime", threads=1) as session:
        assert rows_of(output) == (paths, session.embed(paths, batch_size=1).tobytes())
    return stderr


def test_kills_lose_nothing(artifact: Path, tmp_path: Path) -> None:
    """A killed worker is replaced, a killed driver is gone on with, and Ray says nothing on the terminal."""
    told = check_kills([], ["--ray", "--actors", "1"], artifact, tmp_path, descendants)
    assert re.fullmatch(r"[\d.]+: ONNX Runtime [^\n]+\n\d+ of 300 shards were finished before\.\n", told), (
        told
    )


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
    told = check_kills(prefix, ["--ray", "10.77.0.1:6399"], artifact, tmp_path, lambda _: pids_in(second))
    assert "10.77.0.1: ONNX Runtime" in told
    assert "10.77.0.2: ONNX Runtime" in told
