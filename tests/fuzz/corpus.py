"""``python -m tests.fuzz.corpus [FOLDER]``: what ``make fuzz`` left in a folder, as ``corpus/TARGET.zip``.

Of all inputs those are kept, the smallest first, that reach something which none before reached, up to ``MAX_BYTES``.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.fuzz.inputs import HERE
from tests.fuzz.targets import TARGETS

MAX_BYTES = 16_000


def main(folder: Path) -> None:
    """Write the corpora of all targets that have inputs in the folder."""
    (HERE / "corpus").mkdir(exist_ok=True)
    for name in TARGETS:
        if (folder / name).is_dir():
            _write(name, folder / name)


def _write(name: str, inputs: Path) -> None:
    with tempfile.TemporaryDirectory() as kept, tempfile.TemporaryDirectory() as findings:
        command = [sys.executable, "-m", "tests.fuzz.fuzzer", name, findings, "-merge=1", kept, inputs]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        files = sorted(Path(kept).iterdir(), key=lambda path: (path.stat().st_size, path.name))
        target, size = HERE / "corpus" / f"{name}.zip", 0
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                size += path.stat().st_size
                if size > MAX_BYTES:
                    break
                archive.writestr(zipfile.ZipInfo(path.name[:16]), path.read_bytes(), zipfile.ZIP_DEFLATED)
        print(f"{name}: {len(archive.namelist())} of {len(files)} inputs, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(*sys.argv[1:]) if sys.argv[1:] else Path("fuzz"))
