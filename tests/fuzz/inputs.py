"""The committed inputs: ``corpus/TARGET.zip``, to reach most of a reader, and ``findings/TARGET/NAME``, once wrong."""

import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def inputs_of(target: str) -> dict[str, bytes]:
    """All committed inputs of a target by their names."""
    found = {path.name: path.read_bytes() for path in sorted((HERE / "findings" / target).glob("*"))}
    corpus = HERE / "corpus" / f"{target}.zip"
    if corpus.is_file():
        with zipfile.ZipFile(corpus) as archive:
            found |= {name: archive.read(name) for name in archive.namelist()}
    return found
