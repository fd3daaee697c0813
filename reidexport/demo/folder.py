"""The demo's output folder: made whole, and replaced only if it is the demo's own."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reidexport.errors import InputError

MARKER = ".reidexport-demo"


@contextmanager
def replaced_folder(out: Path, contents: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty folder beside ``out`` to fill; it takes the place of ``out`` when the block succeeds.

    When the block fails, what it wrote is removed, and an earlier ``out`` stays as it was.

    Args:
        out: where to; it may be missing, empty, or an earlier result.
        contents: the names that the demo writes: anything else in ``out`` is the user's, and is not touched.

    Raises:
        InputError: ``out`` holds something else, or cannot be made.
    """
    # Resolved, as "." has no name to put a neighbor beside.
    out = out.resolve()
    _refuse_foreign(out, contents)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise InputError(
            f"{out}: cannot make a folder there ({error.strerror}). Choose another --out."
        ) from error
    try:
        made = temporary / "new"
        made.mkdir()
        (made / MARKER).touch()
        yield made
        _swap(made, out, temporary / "old")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(made: Path, out: Path, old: Path) -> None:
    """Put ``made`` in the place of ``out``; when that fails or is interrupted, ``out`` is put back."""
    if out.exists():
        out.rename(old)
    try:
        made.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)


def _refuse_foreign(out: Path, contents: tuple[str, ...]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is not a folder. Choose another --out.")
    names = {entry.name for entry in out.iterdir()}
    foreign = sorted(names - {MARKER, *contents}) if MARKER in names else sorted(names)
    if foreign:
        raise InputError(
            f"{out} holds {foreign[0]}, which the demo did not make. Empty it, or choose another --out."
        )
