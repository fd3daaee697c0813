"""The paper's tables as commands, on drawn people and with tiny runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.data import Dataset, load_dataset
from reidexport.data.synthetic import draw_dataset
from reidexport.errors import InputError, StoppedError
from train import tables
from train.campaign import run_campaign
from train.cli import main
from train.dataset import DataSource
from train.evaluation import evaluate_checkpoint
from train.parts import MANIFEST
from train.recipe import load_recipe
from train.tables import TABLES, PaperRow, PaperTable, run_name, run_table, table_markdown
from train.training import TrainingOptions

TINY = [
    *(
        "images.height_px=64",
        "images.width_px=32",
        "images.pad_px=4",
        "batch.num_pids=4",
        "batch.num_instances=2",
    ),
    *("model.backbone=resnet18", "schedule.num_epochs=1", "schedule.warmup_epochs=1"),
]
OPTIONS = TrainingOptions(init="none", resume=True, workers=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn data set under Market-1501's name, so that the paper's figures belong beside it."""
    folder = tmp_path_factory.mktemp("tables") / "market1501"
    draw_dataset(folder, num_train_pids=5, num_test_pids=3, num_cameras=2, images_per_camera=2)
    return folder


def test_table_2_scores_both_features_with_both_metrics(root: Path, tmp_path: Path) -> None:
    """Five rows from two runs, as JSON and Markdown beside the paper's; a second call trains nothing."""
    lines: list[str] = []
    markdown = run_table(2, DataSource(root), tmp_path, OPTIONS, assignments=TINY, log=lines.append)
    content = json.loads((tmp_path / "table-2.json").read_text())
    assert [row["run"] for row in content["rows"]] == ["+stride1"] + 4 * ["+bnneck"]
    assert [(row["feature"], row["metric"]) for row in content["rows"]] == [
        ("f_t", "euclidean"),
        *((feature, metric) for feature in ("f_t", "f_i") for metric in ("euclidean", "cosine")),
    ]
    assert content["rows"][4]["paper"] == {"rank1": 0.941, "mAP": 0.857}
    assert (tmp_path / "table-2.md").read_text() == markdown == table_markdown(content)
    rank1, mean_ap = (f"{content['rows'][4][key]:.1%}" for key in ("rank1", "mAP"))
    assert f"| f_i, cosine | {rank1} | {mean_ap} | 94.1% | 85.7% |" in markdown
    assert sum(line.startswith("epoch") for line in lines) == 2
    lines.clear()
    assert run_table(2, DataSource(root), tmp_path, OPTIONS, assignments=TINY, log=lines.append) == markdown
    assert not any(line.startswith("epoch") for line in lines)


def test_table_4_re_ranks_the_same_run(root: Path, tmp_path: Path) -> None:
    """One run, scored plainly and re-ranked."""
    run_table(4, DataSource(root), tmp_path, OPTIONS, assignments=TINY)
    plain, reranked = json.loads((tmp_path / "table-4.json").read_text())["rows"]
    assert (plain["rerank"], reranked["rerank"]) == (False, True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["strong-baseline"]


def test_table_3_scores_another_domain(
    root: Path, tmp_path: Path, drawn_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on one data set and scored on the other; both are named."""
    both = tmp_path / "both"
    both.mkdir()
    (both / "market1501").symlink_to(root)
    (both / "dukemtmc-reid").symlink_to(drawn_dataset.query[0].path.parents[1])
    monkeypatch.setitem(tables.TABLES, 3, PaperTable("cut", TABLES[3].rows[:1], crosses=True))
    markdown = run_table(
        3, DataSource(both, "market1501"), tmp_path, OPTIONS, assignments=TINY, target="dukemtmcreid"
    )
    content = json.loads((tmp_path / "table-3.json").read_text())
    assert (content["trained_on"], content["scored_on"]) == ("market1501", "dukemtmcreid")
    assert "trained on market1501, scored on dukemtmcreid" in markdown
    assert "24.4%" in markdown
    with pytest.raises(InputError, match="pass --target"):
        run_table(3, DataSource(both, "market1501"), tmp_path, OPTIONS, assignments=TINY)


def test_a_stopped_table_continues(root: Path, tmp_path: Path) -> None:
    """It says how far it came; the same call finishes it."""
    with pytest.raises(StoppedError, match=r"stopped in row 1 of 2.*Run the same command again"):
        run_table(4, DataSource(root), tmp_path, OPTIONS, assignments=TINY, stop=lambda: True)
    assert "Ours (RK)" in run_table(4, DataSource(root), tmp_path, OPTIONS, assignments=TINY)


@pytest.mark.parametrize("number", sorted(TABLES))
def test_every_row_is_a_recipe_of_its_own_folder(number: int) -> None:
    """Rows with one name are one recipe, and rows with different names are different ones."""
    recipes = {(run_name(row), load_recipe(row.recipe, row.changes)) for row in TABLES[number].rows}
    assert len({name for name, _ in recipes}) == len(recipes) == len({str(recipe) for _, recipe in recipes})


@pytest.fixture
def two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign of two rows."""
    monkeypatch.setitem(
        tables.TABLES, 1, PaperTable("cut", (PaperRow("one", "+bnneck", {}), PaperRow("two", "+rea", {})))
    )


@pytest.mark.usefixtures("two_parts")
def test_the_campaign_writes_the_results_of_its_parts(root: Path, tmp_path: Path) -> None:
    """A folder for each, the last row's first, and the table beside them; of a stopped part, what it has come to."""
    results = tmp_path / "results"
    with pytest.raises(StoppedError, match="stopped in part 1-rea: run the same command again"):
        run_campaign(
            DataSource(root), tmp_path, OPTIONS, results=results, assignments=TINY, stop=lambda: True
        )
    assert json.loads((results / "1-rea" / MANIFEST).read_text())["epoch"] == 0
    markdown = run_campaign(DataSource(root), tmp_path, OPTIONS, results=results, assignments=TINY)
    assert "| one |" in markdown
    assert {path.name for path in results.iterdir()} == {"1-rea", "2-bnneck", "table-1.json", "table-1.md"}
    for name in ("1-rea", "2-bnneck"):
        files = {path.name: path.stat().st_size for path in (results / name).iterdir()}
        assert {MANIFEST, "history.json", "result.json", "weights-1.part"} <= set(files)
        assert len(files) <= 8
        assert max(files.values()) < 16 << 20
    result = json.loads((results / "2-bnneck" / "result.json").read_text())
    assert result["recipe"]["model"]["backbone"] == "resnet18"


@pytest.mark.usefixtures("two_parts")
def test_a_part_of_the_campaign_trains_where_there_is_no_test_split(root: Path, tmp_path: Path) -> None:
    """One part, from bounding_box_train alone: the answer says how to score it, which then works elsewhere."""
    (tmp_path / "market1501").mkdir()
    (tmp_path / "market1501" / "bounding_box_train").symlink_to(root / "bounding_box_train")
    options = replace(OPTIONS, evaluate=False)
    changes = [*TINY, "model.backbone=osnet_x0_25", "tricks.last_stride_1=false"]
    with pytest.raises(InputError, match=r"no part \'3-x\' in the campaign\. Parts: 1-rea, 2-bnneck"):
        run_campaign(DataSource(tmp_path), tmp_path, options, results=tmp_path / "results", only="3-x")
    text = run_campaign(
        DataSource(tmp_path),
        tmp_path,
        options,
        results=tmp_path / "results",
        only="2-bnneck",
        assignments=changes,
    )
    folder, joined = tmp_path / "results" / "2-bnneck", tmp_path / "joined.pth"
    assert f"python -m train join {folder} -o 2-bnneck.pth; reidexport eval 2-bnneck.pth --data ROOT" in text
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["2-bnneck"]
    with pytest.raises(SystemExit, match="0"):
        main(["join", str(folder), "-o", str(joined)])
    evaluation = evaluate_checkpoint(load_checkpoint(joined), load_dataset(root), metric="cosine")
    assert 0 < evaluation.metrics.as_dict()["rank1"] <= 1
