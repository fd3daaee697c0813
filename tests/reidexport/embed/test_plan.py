"""The plan of a run: written once, and continued only as it was."""

from functools import partial
from pathlib import Path

import pytest

from reidexport.embed.files import read_gallery
from reidexport.embed.plan import PLAN_NAME, Plan, Shard, make_plan
from reidexport.errors import InputError
from tests.standins.image_sources import COLUMNS


def test_a_plan_is_gone_on_with_only_as_it_was(tmp_path: Path) -> None:
    """A second run needs --resume, the same artifact and the same shards; a folder of other things stays."""
    output, shards = tmp_path / "out", [Shard("images", ["a.jpg", "b.jpg"]), Shard("images", ["c.jpg"])]
    plan = partial(make_plan, output, manifest_sha256="1", columns=COLUMNS, shard_size=32)
    first = plan(shards, resume=False)
    assert first.unfinished() == [0, 1]
    first.part_path(0).touch()
    again = plan(shards, resume=True)
    assert (again.sha256, again.offsets, again.unfinished()) == (first.sha256, first.offsets, [1])
    before = (output / PLAN_NAME).read_bytes()
    with pytest.raises(InputError, match=r"holds a run already\. Continue it with --resume, or delete"):
        plan(shards, resume=False)
    for other in (shards[:1], [*shards, shards[0]], [shards[1], shards[0]]):
        with pytest.raises(InputError, match=r"was of other images \(3 files, now"):
            plan(other, resume=True)
    with pytest.raises(
        InputError, match="used another artifact, camera profile or table of cameras, or other columns"
    ):
        make_plan(output, shards, manifest_sha256="2", columns=COLUMNS, shard_size=32, resume=True)
    with pytest.raises(InputError, match="table of cameras"):
        plan(shards, resume=True, cameras_sha256="of another table")
    assert (output / PLAN_NAME).read_bytes() == before
    with pytest.raises(InputError, match="exists and is not a folder of embeddings"):
        make_plan(tmp_path, shards, manifest_sha256="1", columns=COLUMNS, shard_size=32, resume=True)


def plan_of_one_image(folder: Path) -> Plan:
    """A new run of a shard."""
    shards = [Shard("images", ["a"])]
    return make_plan(folder, shards, manifest_sha256="", columns=COLUMNS, shard_size=32, resume=False)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    """What can be done about it is said, too."""
    plan = plan_of_one_image(tmp_path / "o")
    plan.part_path(0).write_text("junk")
    with pytest.raises(
        InputError, match=r"part-00000000\.parquet: damaged .*Delete it, and continue with --resume"
    ):
        plan.counts()


def test_an_unfinished_folder_is_no_gallery(tmp_path: Path) -> None:
    """Searching half of the images would be silently wrong."""
    plan_of_one_image(tmp_path / "o")
    with pytest.raises(
        InputError, match=r"1 of 1 shards are not embedded yet\. Finish the run with --resume"
    ):
        read_gallery(tmp_path / "o")
