"""From sources to shards: files, folders, patterns, tars and Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidexport.embed.plan import Shard
from reidexport.embed.sources import shards_of
from reidexport.errors import InputError, NotInstalledError
from tests.standins.image_sources import COLUMNS, jpeg, write_images, write_tar


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


def test_other_parquet_files_of_a_folder_are_no_sources(tmp_path: Path) -> None:
    """Those without the columns, such as an earlier output, and the run's own, however the folder is named."""
    images = write_images(tmp_path / "in", 2)
    pq.write_table(pa.table({"path": [""], "embedding": [0.0]}), tmp_path / "in" / "old.parquet")
    own = tmp_path / "in" / "o.npz.partial"
    own.mkdir()
    pq.write_table(pa.table({"image": [b""], "path": [""]}), own / "part-00000000.parquet")
    elsewhere = tmp_path / "in" / ".." / "in" / "o.npz.partial"
    assert list(shards_of([str(tmp_path / "in")], 3, COLUMNS, own=[elsewhere])) == [Shard("images", images)]
