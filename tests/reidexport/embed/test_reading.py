"""The images of a shard, from files, tars, Parquet files and URLs."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidexport.embed.plan import Columns, Shard
from reidexport.embed.reading import read_ahead
from reidexport.embed.sources import shards_of
from tests.standins.image_sources import COLUMNS, contents, jpeg, write_images, write_tar


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_are_read_from_end_to_end(tmp_path: Path, mode: str) -> None:
    """Members with an image's suffix, under the tar's name; captions, hidden files and odd names do no harm."""
    members = {"./a/1.jpg": jpeg(1), "a/1.json": b"{}", "a/2.JPG": b"", "\udcff.png": b"x", "a/._1.jpg": b"x"}
    path = write_tar(tmp_path / "x.tar", members, mode)
    assert contents(Shard("tar", [str(path)])) == {
        f"{path}/a/1.jpg": jpeg(1),
        f"{path}/a/2.JPG": b"",
        f"{path}/\\udcff.png": b"x",
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_tar_loses_no_image_silently(tmp_path: Path, mode: str) -> None:
    """What is before the damage is read; the rest is reported, wherever the cut or the wrong byte is."""
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
    """Dots lead into structs, as Hugging Face writes them; rows without bytes or a name are reported."""
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
    """Folders, files, tars and Parquet files behind HTTP; a file that is gone is reported, a server's error raised."""
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
