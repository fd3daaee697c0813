"""A file that a command writes is either whole or not there, and an old one survives a failure."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from reidruntime.artifact.manifest import file_sha256

from reidexport.errors import InputError
from reidexport.files import replaced_when_whole


def test_new_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """The file is not there under its name before the block has ended; then it is, and nothing else."""
    path = tmp_path / "model.onnx"
    with replaced_when_whole(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".onnx"
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_is_replaced_at_once(tmp_path: Path) -> None:
    """Until the block ends the old content is there, whole."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with replaced_when_whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_old_file_survives_a_failure(failure: type[BaseException], tmp_path: Path) -> None:
    """A failure or an interruption in the middle leaves the old file as it was, and no temporary one."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(failure), replaced_when_whole(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_no_new_file(tmp_path: Path) -> None:
    """A failure where there was no file leaves the folder empty."""
    with pytest.raises(RuntimeError), replaced_when_whole(tmp_path / "model.onnx") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    """Others may read the file as far as the umask allows, though temporary files are private."""
    path = tmp_path / "model.onnx"
    old = os.umask(0o027)
    try:
        with replaced_when_whole(path) as temporary:
            temporary.write_bytes(b"new")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("where", ["missing folder", "folder is a file"])
def test_folder_that_cannot_be_written_to(where: str, tmp_path: Path) -> None:
    """A missing folder, or a file in its place, is an error that says what to do, before any work is done."""
    folder = tmp_path / "models"
    if where == "folder is a file":
        folder.write_bytes(b"")
    with (
        pytest.raises(InputError, match=r"models/model\.onnx: cannot write there \(No.*\)\. Make the folder"),
        replaced_when_whole(folder / "model.onnx"),
    ):
        raise AssertionError("the block must not run")


def test_path_that_is_a_folder(tmp_path: Path) -> None:
    """A folder under the file's name is an error before any work is done, and is left alone."""
    path = tmp_path / "model.onnx"
    path.mkdir()
    with (
        pytest.raises(InputError, match=r"model\.onnx: is not a regular file\. Choose another path"),
        replaced_when_whole(path),
    ):
        raise AssertionError("the block must not run")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout"])
def test_devices_are_left_alone(path: str) -> None:
    """A device or a pipe is refused, not replaced by a file."""
    if Path(path).is_file() or not Path(path).exists():
        pytest.skip(f"{path} is a file here, or not there")
    with (
        pytest.raises(InputError, match=r"is not a regular file\. Choose another path"),
        replaced_when_whole(Path(path)),
    ):
        raise AssertionError("the block must not run")
    assert not Path(path).is_file()


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(exists: bool, tmp_path: Path) -> None:
    """The file that a link points to is replaced, or made; the link stays."""
    target = tmp_path / "models" / "real.onnx"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link = tmp_path / "model.onnx"
    link.symlink_to(target)
    with replaced_when_whole(link) as temporary:
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_sha256_of_a_file(tmp_path: Path) -> None:
    """The hash is that of the bytes, for a file larger than one buffer too."""
    path = tmp_path / "bytes"
    path.write_bytes(b"reid" * 1_000_000)
    assert file_sha256(path) == hashlib.sha256(b"reid" * 1_000_000).hexdigest()
