"""The demo's checkpoint: the trainer's ``smoke`` recipe, run as a user would run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import reidexport
from reidexport.errors import InputError, NotInstalledError

CHECKOUT = Path(reidexport.__file__).parents[1]


def train_smoke(out: Path, changes: tuple[str, ...]) -> dict[str, Any]:
    """Run ``python -m train smoke``, which draws people into ``out/data`` and trains on them.

    Args:
        out: the run's folder.
        changes: of the recipe, as for ``--set``.

    Returns:
        The run's ``result.json``.

    Raises:
        NotInstalledError: the trainer is missing: it comes with the repository, not with the package.
        InputError: it fails; its message is on stderr.
    """
    if not (CHECKOUT / "train" / "__main__.py").is_file():
        raise NotInstalledError(
            "the demo trains its network with the repository's trainer, which is not part of the installed package: "
            "run it in a checkout of reidexport, after pip install --editable '.[export,cpu,train]'"
        )
    options = [f"--out={out}", *(f"--set={change}" for change in changes)]
    command = [sys.executable, "-m", "train", "smoke", *options]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode == 3:
        raise NotInstalledError("the trainer lacks a package: pip install 'reidexport[train]'")
    if done.returncode:
        raise InputError(f"the trainer stopped with exit status {done.returncode}: {' '.join(command)}")
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result
