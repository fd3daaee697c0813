"""An actor, without Ray: nodes that have other files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reidruntime import SessionOptions, open_session
from reidruntime.artifact.own_manifest import artifact_manifest

from reidexport.embed.cluster import ShardEmbedder
from reidexport.embed.files import read_gallery
from reidexport.embed.plan import Plan, Shard, make_plan
from reidexport.embed.shards import EmbeddingRunOptions
from reidexport.errors import InputError
from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.image_sources import COLUMNS, write_images


def node(plan: Plan, artifact: Path, manifest_sha256: str) -> ShardEmbedder:
    """What a node of the cluster embeds with."""
    return ShardEmbedder(
        plan=plan,
        folder=Path(),
        artifact=artifact,
        manifest=None,
        cameras=None,
        manifest_sha256=manifest_sha256,
        options=EmbeddingRunOptions(on_error="skip"),
        session_options=SessionOptions(device="cpu", threads=1),
    )


def test_a_node_that_sees_other_files_stops_the_run(artifact: Path, tmp_path: Path) -> None:
    """A folder, a plan or an artifact that is missing or another is reported, and no part is written."""
    paths = write_images(tmp_path / "in", 2)
    output, sha256 = tmp_path / "out", artifact_manifest(artifact).sha256
    shards = [Shard("images", paths), Shard("tar", [f"{tmp_path}/x.tar"])]
    plan = make_plan(output, shards, manifest_sha256=sha256, columns=COLUMNS, shard_size=32, resume=False)
    embedder = node(plan, artifact, sha256)
    with pytest.raises(InputError, match="a node cannot read the plan there"):
        replace(embedder, plan=replace(plan, sha256="0")).embed(0)
    with pytest.raises(InputError, match="a node has another file there"):
        replace(embedder, manifest_sha256="0").embed(0)
    with pytest.raises(InputError, match=r"x\.tar: .* finds no such file"):
        embedder.embed(1)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(InputError, match=r"in: .* finds no such folder"):
        embedder.embed(0)
    assert plan.unfinished() == [0, 1]


def test_a_node_uses_the_camera_profile(artifact: Path, tmp_path: Path) -> None:
    """Its rows are those of a session with the profile; with another one than the driver's it stops."""
    paths = write_images(tmp_path / "in", 2)
    with open_session(artifact) as plain:
        dim = plain.manifest.architecture.feature_dim
    cameras = write_profile(small_profile(artifact, dim), artifact)
    options = SessionOptions(device="cpu", threads=1, unknown_camera="mean")
    with open_session(artifact, options, cameras=cameras) as session:
        sha256, expected = session.manifest.sha256, session.embed(paths)
    shards = [Shard("images", paths)]
    plan = make_plan(
        tmp_path / "out", shards, manifest_sha256=sha256, columns=COLUMNS, shard_size=32, resume=False
    )
    embedder = replace(node(plan, artifact, sha256), cameras=cameras, session_options=options)
    with pytest.raises(InputError, match="a node has another file there"):
        replace(embedder, cameras=None).embed(0)
    assert embedder.embed(0).num_images == 2
    assert np.array_equal(read_gallery(plan.folder).embeddings(np.arange(2)), expected)
