"""An actor, without Ray: a shard embedded as by a session, and nodes that have other files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reidruntime import open_session
from reidruntime.artifact.own_manifest import artifact_manifest

from reidexport.embed.cluster.worker import Job, ShardEmbedder, embed_shard
from reidexport.embed.plan import Shard, make_plan, part_path, read_errors
from reidexport.errors import InputError
from tests.standins.cluster_sources import COLUMNS, rows_of, write_images


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
    """A folder, a plan or an artifact that is missing or another is reported, and no part is written."""
    paths = write_images(tmp_path / "in", 2)
    output, sha256 = tmp_path / "out", artifact_manifest(artifact).sha256
    shards = [Shard("images", paths), Shard("tar", [f"{tmp_path}/x.tar"])]
    plan = make_plan(output, shards, manifest_sha256=sha256, columns=COLUMNS, resume=False)
    job = job_for(artifact, output, plan.sha256)

    def message_of(job: Job) -> str:
        row = ShardEmbedder(job, threads=1)({"offset": np.array(plan.offsets[:1])})
        assert row["error"] == ["InputError"]
        return str(row["message"][0])

    assert "a node cannot read the plan there" in message_of(replace(job, plan_sha256="0"))
    assert "a node has another file there" in message_of(replace(job, manifest_sha256="0"))
    with open_session(artifact, threads=1) as session:
        with pytest.raises(InputError, match=r"x\.tar: .* finds no such file"):
            embed_shard(session, job, 1, shards[1])
        shutil.rmtree(tmp_path / "in")
        with pytest.raises(InputError, match=r"in: .* finds no such folder"):
            embed_shard(session, job, 0, shards[0])
    assert plan.unfinished() == [0, 1]
