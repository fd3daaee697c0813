"""Shards into parts: as a session answers, whatever batches and shards have in common."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from reidruntime import EncodedImage, SessionOptions, open_session

from reidexport.embed.plan import Plan, Shard, make_plan
from reidexport.embed.shards import EmbeddingRunOptions, embed_shards
from tests.standins.image_sources import COLUMNS, jpeg, rows_of, write_images, write_tar

SKIP = EmbeddingRunOptions(on_error="skip", batch_size=4)


def plan_of(folder: Path, shards: list[Shard]) -> Plan:
    """A new plan."""
    return make_plan(folder, shards, manifest_sha256="", columns=COLUMNS, shard_size=32, resume=False)


def test_a_shard_is_embedded_as_by_a_session(artifact: Path, tmp_path: Path) -> None:
    """Its part holds what the session answers; bad images are in the table of errors; done again, nothing changes."""
    paths = write_images(tmp_path / "in", 5)
    Path(paths[1]).write_bytes(b"x")
    Path(paths[2]).unlink()
    plan = plan_of(tmp_path / "out", [Shard("images", paths)])
    with open_session(artifact, SessionOptions(threads=1)) as session:
        assert sum(done.num_images for done in embed_shards(session, plan, [0], SKIP)) == 5
        assert plan.counts() == (3, 2)
        good = [paths[0], *paths[3:]]
        assert rows_of(plan.part_path(0)) == (good, session.embed(good).tobytes())
        before = plan.part_path(0).stat()
        assert list(embed_shards(session, plan, [0], SKIP)) == []
        assert plan.part_path(0).stat() == before
    (bad, reason), (missing, why) = plan.bad_images()
    assert (bad, missing) == (paths[1], paths[2])
    assert "not an image" in reason
    assert "cannot be read (No such file" in why


def test_batches_cross_shards(artifact: Path, tmp_path: Path) -> None:
    """Shards of files, tars and rows make one stream; one without a good image has a part, too."""
    paths = write_images(tmp_path / "in", 11)
    for bad in (3, 4, 10):
        Path(paths[bad]).write_bytes(b"x")
    tar = write_tar(tmp_path / "x.tar", {f"{index}.jpg": jpeg(index) for index in range(20, 26)})
    rows = {"image": [jpeg(30), b"x", jpeg(31)], "path": ["30.jpg", "bad.jpg", "31.jpg"]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    shards = [Shard("images", paths[start:stop]) for start, stop in ((0, 3), (3, 5), (5, 10), (10, 11))]
    shards[2:2] = [Shard("tar", [str(tar)]), Shard("parquet", [f"{tmp_path}/x.parquet"], [0])]
    plan = plan_of(tmp_path / "out", shards)
    with open_session(artifact, SessionOptions(threads=1)) as session:
        steps = list(embed_shards(session, plan, range(len(shards)), SKIP))
        names, contents = [], []
        for name in [*paths[:3], *range(20, 26), 30, 31, *paths[5:10]]:
            names.append(
                name if isinstance(name, str) else f"{tar}/{name}.jpg" if name < 30 else f"{name}.jpg"
            )
            contents.append(
                EncodedImage("", Path(name).read_bytes() if isinstance(name, str) else jpeg(name))
            )
        assert rows_of(tmp_path / "out") == (names, session.embed(contents, batch_size=4).tobytes())
    assert sum(done.num_images for done in steps) == 20
    assert [done.num_shards for done in steps].count(1) == len(shards)
    assert plan.counts() == (16, 4)
    assert [name for name, _ in plan.bad_images()] == [*paths[3:5], "bad.jpg", paths[10]]
