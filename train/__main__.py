"""``python -m train`` and ``torchrun -m train``."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("reidruntime") is None:  # a checkout that is not installed
    sys.path.append(str(Path(__file__).parents[1] / "engines" / "python"))

from train.cli import main

main()
