"""Every file that boxmot 25 downloads is told by its content, and its trainer's own files are read.

tests/golden/boxmot_catalogue.json.gz holds the names and shapes of the networks as boxmot builds them for each file;
-1 stands for the number of classes.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reidexport.checkpoint import loading
from reidexport.checkpoint.loading import load_checkpoint, model_from_checkpoint
from reidexport.checkpoint.weights import Weights
from reidexport.errors import CheckpointError
from tests.standins import checkpoints
from tests.standins.checkpoints import GOLDEN, expected, golden_images, normalized, relative_l2

with gzip.open(GOLDEN / "boxmot_catalogue.json.gz", "rt") as stream:
    CATALOGUE: dict[str, Any] = json.load(stream)


def test_the_catalogue_has_35_files() -> None:
    """Nothing of boxmot's list is left out."""
    assert len(CATALOGUE["files"]) == 35


@pytest.mark.parametrize("name", CATALOGUE["files"])
def test_every_file_is_told_by_its_content(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and shapes tell each file's network, neck, classes and size of images; no file name is looked at."""
    network, num_classes = CATALOGUE["files"][name]
    about = CATALOGUE["networks"][network]
    shapes = {
        key: [num_classes if size < 0 else size for size in shape] for key, shape in about["shapes"].items()
    }
    # The tensors take no memory, and are not looked through.
    weights = Weights({key: torch.ones(()).expand(shape) for key, shape in shapes.items()}, "state dict")
    monkeypatch.setattr(loading, "_finite", dict)
    contents = loading._contents_by_names(weights, None)
    found = contents.architecture
    is_lmbn, has_fc = network == "lmbn_n", network.startswith(("osnet", "resnet50_fc512"))
    assert contents.family.name == ("boxmot" if is_lmbn else "torchreid")
    assert found.backbone == network.removesuffix("_fc512")
    assert found.neck == ("bnneck" if is_lmbn else "fc" if has_fc else "none")
    assert found.last_stride == {"resnet50": 2, "resnet50_fc512": 1}.get(network)
    assert found.unit_parts is False
    assert found.num_classes == ("classifier.weight" in shapes) * num_classes
    assert [contents.preprocess.height_px, contents.preprocess.width_px] == about["size"]


def trained(case: str, **beside: object) -> dict[str, object]:
    """What boxmot's trainer writes of a golden case: float16, without classifiers, its settings beside it."""
    weights = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in checkpoints.golden_weights(case).items()
        if ".classifier." not in f".{key}"
    }
    return {
        "model_name": "lmbn_n", "num_classes": 10, "preprocess": "resize", "img_size": [384, 128],
        "model_kwargs_schema_version": 1, "model_kwargs": {"img_size": [384, 128]}, "model": {"family": "cnn"},
        "state_dict": weights, "checkpoint_type": "best", "checkpoint_precision": "float16", **beside,
    }  # fmt: skip


def test_files_of_its_trainer_are_read(tmp_path: Path) -> None:
    """Weights in float16 without a classifier answer as those in float32, and the size that is beside them is read."""
    path = tmp_path / "best.pt"
    torch.save(trained("lm_lmbn_n_boxmot"), path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.origins["size"] == "read"
    assert (checkpoint.preprocess.height_px, checkpoint.preprocess.width_px) == (384, 128)
    with torch.inference_mode():
        _, f_i = model_from_checkpoint(checkpoint)(normalized(golden_images("lm_lmbn_n_boxmot")))
    assert relative_l2(f_i, expected("lm_lmbn_n_boxmot", "f_i")) < 5e-3


def test_the_size_beside_the_weights_is_taken(tmp_path: Path) -> None:
    """Another size than its network's usual one is taken from the file."""
    path = tmp_path / "best.pt"
    torch.save(trained("tr_mobilenetv2_x1_0", img_size=[320, 128]), path)
    preprocess = load_checkpoint(path).preprocess
    assert (preprocess.height_px, preprocess.width_px) == (320, 128)


def test_padded_images_are_refused(tmp_path: Path) -> None:
    """Its other way of resizing, with a border, is not known here."""
    path = tmp_path / "best.pt"
    torch.save(trained("tr_mobilenetv2_x1_0", preprocess="resize_pad"), path)
    with pytest.raises(CheckpointError, match=r"boxmot trained it with preprocess 'resize_pad'"):
        load_checkpoint(path)
