"""``reidexport eval``: rank-1, mAP and mINP of a checkpoint or an artifact on a data set."""

import json
from pathlib import Path
from typing import Annotated

import typer

from reidexport.datasets import load_dataset
from reidexport.evaluation import Evaluation, evaluate
