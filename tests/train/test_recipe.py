"""Recipes: what comes with the trainer, what can be set, and what is refused."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from reidexport.errors import InputError
from tests import ROOT
from train.cli import main
from train.recipe import Recipe, keys, load_recipe, recipe_differences, recipe_from_dict, recipe_names

TRICKS = ["warmup", "random_erasing", "label_smoothing", "last_stride_1", "bnneck", "center_loss"]
CUMULATIVE = ["standard-baseline", "+warmup", "+rea", "+ls", "+stride1", "+bnneck", "+center"]


@pytest.mark.parametrize(("count", "name"), list(enumerate(CUMULATIVE)))
def test_table_1_adds_one_trick_after_the_other(count: int, name: str) -> None:
    """Recipe n of table 1 has the first n tricks on, and is the standard baseline in everything else."""
    recipe = load_recipe(name)
    assert [trick for trick, on in asdict(recipe.tricks).items() if on] == TRICKS[:count]
    differences = recipe_differences(recipe, load_recipe("standard-baseline"))
    assert all(difference.startswith("tricks.") for difference in differences)


def test_the_defaults_are_the_paper_s_section_2() -> None:
    """Size, padding, P, K, margin, learning rate, steps and epochs."""
    recipe = Recipe()
    assert (recipe.images.height_px, recipe.images.width_px, recipe.images.pad_px) == (256, 128, 10)
    assert (recipe.batch.num_pids, recipe.batch.num_instances) == (16, 4)
    assert (recipe.losses.triplet_margin, recipe.losses.smoothing) == (0.3, 0.1)
    assert (recipe.losses.center_weight, recipe.losses.center_learning_rate) == (0.0005, 0.5)
    schedule = recipe.schedule
    assert (schedule.learning_rate, schedule.decay_epochs, schedule.num_epochs) == (3.5e-4, (40, 70), 120)
    assert (schedule.weight_decay, schedule.warmup_epochs) == (5e-4, 10)
    erasing = recipe.erasing
    assert (erasing.probability, erasing.min_area, erasing.max_area) == (0.5, 0.02, 0.4)
    assert (erasing.min_aspect, erasing.max_aspect, erasing.max_tries) == (0.3, 3.33, 100)


def test_strong_baseline_is_all_six_and_its_pair_lacks_rea() -> None:
    """The last rows of tables 1 and 3."""
    assert recipe_differences(load_recipe("strong-baseline"), load_recipe("+center")) == []
    differences = recipe_differences(load_recipe("strong-baseline"), load_recipe("strong-baseline-no-rea"))
    assert differences == ["tricks.random_erasing: True and False"]


def test_keys_are_set_in_order() -> None:
    """Numbers, lists, booleans and bare strings, the later assignment winning."""
    recipe = load_recipe(
        "strong-baseline",
        [
            "schedule.decay_epochs=[3, 5]",
            "model.backbone=osnet_x0_25",
            "tricks.bnneck=false",
            "seed=1",
            "seed=2",
        ],
    )
    assert recipe.schedule.decay_epochs == (3, 5)
    assert recipe.model.backbone == "osnet_x0_25"
    assert not recipe.tricks.bnneck
    assert recipe.seed == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("schedule.num_epoch=3", "there is no key schedule.num_epoch; did you mean schedule.num_epochs?"),
        ("margin=0.3", "did you mean losses.triplet_margin?"),
        ("tricks.bnneck", "expected key=value"),
        ("batch.num_pids=1", "batch.num_pids: Input should be greater than 1, found 1"),
        ("schedule.decay_epochs=[70, 40]", "decay_epochs must rise, got 70, 40"),
        ("erasing.min_area=0.5", "min_area must not exceed max_area"),
        ("tricks=true", "there is no key tricks"),
    ],
)
def test_what_cannot_be_set_is_refused(assignment: str, message: str) -> None:
    """An unknown key with the nearest valid one, a value with its range."""
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe("strong-baseline", [assignment])


def test_a_file_of_one_s_own_is_a_recipe(tmp_path: Path) -> None:
    """A path that ends in .toml; an unknown table in it is refused with the file's name."""
    path = tmp_path / "mine.toml"
    path.write_text("seed = 3\n[tricks]\nbnneck = true\n")
    assert load_recipe(str(path)).tricks.bnneck
    path.write_text("[trick]\nbnneck = true\n")
    with pytest.raises(
        InputError, match=r"mine\.toml: there is no key trick\.bnneck; did you mean tricks\.bnneck"
    ):
        load_recipe(str(path))
    path.write_text("[tricks\n")
    with pytest.raises(InputError, match=r"mine\.toml: not a TOML file"):
        load_recipe(str(path))
    with pytest.raises(InputError, match=r"no\.toml: there is no such recipe file"):
        load_recipe(str(tmp_path / "no.toml"))
    with pytest.raises(InputError, match=r"no recipe 'strong-baselin'; did you mean strong-baseline\?"):
        load_recipe("strong-baselin")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_a_checkpoint(name: str) -> None:
    """As plain data and back: the same recipe."""
    recipe = load_recipe(name)
    assert recipe_from_dict(asdict(recipe), "a checkpoint") == recipe


def test_list_and_help_show_recipes_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Every recipe, and every key with its default and the paper's section where it has one."""
    for arguments in (["list"], ["--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        shown = capsys.readouterr().out
        assert all(name in shown for name in recipe_names())
        assert all(key.name in shown and key.default in shown for key in keys())
        assert all(
            "paper" in key.description
            for key in keys()
            if key.name.startswith(("tricks", "erasing", "images"))
        )


def test_every_recipe_and_key_prefix_is_documented() -> None:
    """The trainer's page names each recipe."""
    text = (ROOT / "docs" / "train.md").read_text()
    assert [name for name in recipe_names() if f"`{name}`" not in text] == []
