"""The documents tell the truth: links lead somewhere, and what they tell the reader to type works.

Blocks marked ``sh`` and ``python`` are executed in the order of their page, in a folder that holds what a reader has.
Commands in ``console`` blocks need a GPU, a server, a cluster or an installation: what they name exists.
"""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from reidruntime import open_session
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from reidruntime.backends import BACKENDS
from typer.main import get_command

from reidexport import CheckpointChoices, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.checkpoint.loading import save_checkpoint
from reidexport.cli.app import app as reidexport_app
from reidexport.data import Dataset
from reidexport.models import Baseline, BaselineArchitecture
from tests import ROOT
from tests.conftest import Run
from train.cli import app as train_app
from train.recipe import recipe_names

FOLDERS = ("docs", "benchmarks", "engines", "tests", "train")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
# Programs that are not the project's own, whose options nobody checks here.
OTHER_PROGRAMS = {".", "cd", "cmake", "export", "git", "python3 -m venv"}


class Block(NamedTuple):
    """A fenced block of a page: its language and its lines."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.M)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a block, without prompts, comments and variables that are set for it."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.removeprefix("$ ").split(" && "):
            words = shlex.split(command, comments=True)
            while words and re.match(r"\w+=", words[0]):
                words = words[1:]
            if words:
                yield words


def has_block(page: Path, *languages: str) -> bool:
    """Whether the page has a block in one of the languages."""
    return any(block.language in languages for block in blocks(page))


def page_name(page: Path) -> str:
    """The page's path, as the tests are called."""
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """What links can lead to within a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link of a page to a file of the repository, or to a heading, leads to one."""
    missing = []
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]*))?\)", page.read_text()):
        place = page.parent / target if target else page
        if "://" not in target and not (place.exists() and (not anchor or anchor in anchors(place))):
            missing.append(f"{target}#{anchor}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_tables_are_whole(page: Path) -> None:
    """Every row of a table has as many cells as its head: no cell is lost when the page is rendered."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.M):
        widths = {len(re.findall(r"(?<!\\)\|", row)): row for row in table.splitlines()}
        assert len(widths) == 1, widths
        assert re.fullmatch(r"(\| ?-+ ?)+\|", table.splitlines()[1]), table


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_are_in_fenced_blocks(page: Path) -> None:
    """No command is indented only, where no test would find it."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    assert re.findall(r"^    (?:reidexport|python|pip|make|pytest) .*", text, re.M) == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest ResNet of timm with a BNNeck, of seeded weights, for images of 64x32 px."""
    torch.manual_seed(0)
    model = Baseline(BaselineArchitecture("timm/test_resnet", last_stride=2, feature_dim=96, num_classes=4))
    preprocess = Preprocess(height_px=64, width_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, in_graph=True)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    save_checkpoint(path, model, preprocess)
    return path


@pytest.fixture(scope="module")
def artifact(checkpoint: Path) -> Path:
    """The checkpoint's ONNX file."""
    path = checkpoint.with_suffix(".onnx")
    onnx_from_graph(graph_from_checkpoint(load_checkpoint(checkpoint)), path)
    return path


@pytest.fixture
def readers_folder(
    tmp_path: Path, checkpoint: Path, artifact: Path, drawn_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The working folder, with what a reader of the pages has: weights, an artifact, a data set, crops."""
    for name in ("model.pth", "resnet50_model_120.pth"):
        shutil.copy(checkpoint, tmp_path / name)
    shutil.copy(artifact, tmp_path / "model.onnx")
    data = drawn_dataset.query[0].path.parents[1]
    (tmp_path / "market1501").symlink_to(data)
    (tmp_path / "train_crops").symlink_to(data / "bounding_box_train")
    (tmp_path / "labeled").mkdir()
    (tmp_path / "labeled" / "query").symlink_to(data / "query")
    (tmp_path / "labeled" / "gallery").symlink_to(data / "bounding_box_test")
    for folder, records in (
        ("crops", drawn_dataset.gallery[-4:]),
        ("monday", drawn_dataset.gallery[-8:]),
        ("tuesday", drawn_dataset.query[:3]),
    ):
        (tmp_path / folder).mkdir()
        for record in records:
            shutil.copy(record.path, tmp_path / folder)
    for name in ("a.jpg", "b.jpg", "query.jpg"):
        shutil.copy(drawn_dataset.query[0].path, tmp_path / name)
    monkeypatch.setattr("reidexport.evaluation.parity._LATENCY_SECONDS", 0.1)  # of parity's speed
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if has_block(page, "sh", "python")], ids=page_name)
@pytest.mark.usefixtures("readers_folder")
def test_examples_run(page: Path, run: Run) -> None:
    """The commands and the Python examples of a page run as they stand, one after the other."""
    if any("reidexport onnx model.pth\n" in text for _, text in blocks(page)):
        Path("model.onnx").unlink()  # which that command refuses to replace
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "__main__"})
        for program, *arguments in commands(text) if language == "sh" else ():
            assert program == "reidexport", "only reidexport is executed here: mark the block as console"
            done = run(*arguments)
            assert done.returncode == 0, f"reidexport {shlex.join(arguments)}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if has_block(page, "console", "py")], ids=page_name)
def test_what_is_not_executed_can_be_typed(page: Path) -> None:
    """Every option, make target and extra in a console block exists, and other Python is Python."""
    for language, text in blocks(page):
        if language == "py":
            compile(text, page.name, "exec")
        if language == "console":
            assert all(line.startswith(("$ ", " ")) for line in text.splitlines()), text
            for words in commands(text):
                assert (unknown := unknown_words(words)) == set(), f"{shlex.join(words)}: unknown {unknown}"


def unknown_words(words: list[str]) -> set[str]:
    """What a command's program does not know of the options, targets or extras that the command names."""
    line, options = (
        " ".join(words),
        {word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)},
    )
    if any(line.startswith(other) for other in OTHER_PROGRAMS):
        return set()
    if module := re.search(r"-m (\S+)", line):
        after = words[words.index(module[1]) + 1 :]
        asked = {word.partition("=")[0] for word in after if word.startswith("--")}
        return (
            asked_of_train(after, asked)
            if module[1] == "train"
            else asked - options_in_source(module[1].replace(".", "/"))
        )
    program = Path(words[0]).name
    if program == "reidexport":
        return asked_of_reidexport(words[1:], options)
    if program == "pytest":
        paths = {word for word in words[1:] if word.startswith("benchmarks") and not (ROOT / word).exists()}
        return paths | options - {"-k"} - options_in_source("benchmarks/conftest")
    if program == "make":
        targets = {word for word in words[1:] if "=" not in word}
        return targets - set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        return set(",".join(re.findall(r"\[([\w,]+)\]", line)).split(",")) - {"", *extras}
    return {program}


def asked_of_reidexport(words: list[str], options: set[str]) -> set[str]:
    """The options that a command of reidexport lacks."""
    command = get_command(reidexport_app)
    while subcommands := getattr(command, "commands", None):
        command, words = subcommands[words[0]], words[1:]
    return options - {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


def asked_of_train(words: list[str], options: set[str]) -> set[str]:
    """The options that a command of the trainer lacks; a first word that is no command must be a recipe."""
    trainer = get_command(train_app).commands  # type: ignore[attr-defined]
    name = words[0] if words[0] in trainer else "run"
    known = {option for each in trainer[name].params for option in (*each.opts, *each.secondary_opts)}
    recipes = {words[0]} if name == "run" and not words[0].endswith(".toml") else set()
    return options - known | recipes - set(recipe_names())


def options_in_source(module: str) -> set[str]:
    """The options that a program of argparse, or pytest's conftest, declares."""
    file = next(path for path in (ROOT / f"{module}.py", ROOT / module / "__main__.py") if path.exists())
    return set(re.findall(r'"(--[\w-]+)"', file.read_text()))


def test_console_blocks_are_looked_at() -> None:
    """A wrong option, target, extra, recipe or program is found in each kind of command."""
    wrong = {
        "reidexport onnx model.pth --halve": {"--halve"},
        "bin/reidexport bundle triton model.onnx --out x": {"--out"},
        "python -m train strongest --data d --otu x": {"strongest", "--otu"},
        "torchrun --nproc-per-node 2 -m train smoke --outt x": {"--outt"},
        "python -m benchmarks.serving model.onnx --client 2": {"--client"},
        "pytest benchmarks/bench_nothing.py --result x": {"benchmarks/bench_nothing.py", "--result"},
        "make demos": {"demos"},
        'pip install ".[cpu,gpus]"': {"gpus"},
        "reidexprot onnx": {"reidexprot"},
    }
    assert {line: unknown_words(shlex.split(line)) for line in wrong} == wrong


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links every page of its folder, and docs/decisions/README.md those of its own."""
    for folder in (ROOT / "docs", ROOT / "docs" / "decisions"):
        index = (folder / "README.md").read_text()
        assert [page.name for page in folder.glob("*.md") if f"]({page.name})" not in index] == ["README.md"]


def test_every_decision_says_what_would_change_it() -> None:
    """Each section of a page of decisions ends with it."""
    for page in (ROOT / "docs" / "decisions").glob("*.md"):
        for section in page.read_text().split("\n## ")[1:]:
            assert "*Would change it:* " in section, f"{page.name}: {section.splitlines()[0]}"


def test_the_table_of_backends_is_the_runtimes() -> None:
    """docs/python.md lists the backends as reidruntime.backends.BACKENDS does."""
    own = "the file's"
    rows = [
        f"| `{name}` | {facts.engine} | {', '.join(facts.devices)} | {facts.loads} | {facts.computes_in or own} |"
        for name, facts in BACKENDS.items()
    ]
    assert "\n".join(rows) in (ROOT / "docs" / "python.md").read_text()


def test_the_readme_is_short() -> None:
    """What takes more words is a page of docs/."""
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_cpp_example_answers_as_python_does(tmp_path: Path, checkpoint: Path) -> None:
    """The C++ example compiles against OpenVINO's wheel and prints the runtime's own features."""
    spec = find_spec("openvino")
    if spec is None or spec.origin is None:
        pytest.skip("needs openvino: pip install 'reidexport[cpu]'")
    wheel = Path(spec.origin).parent
    library = next((wheel / "libs").glob("libopenvino.so*"))
    model, program = tmp_path / "model.onnx", tmp_path / "embed"
    example = next(text for _, text in blocks(ROOT / "docs" / "cpp.md") if "openvino.hpp" in text)
    (tmp_path / "embed.cpp").write_text(example)
    onnx_from_graph(
        graph_from_checkpoint(load_checkpoint(checkpoint, CheckpointChoices(size=(256, 128)))), model
    )
    subprocess.run(
        [
            *("g++", "-std=c++17", tmp_path / "embed.cpp", f"-I{wheel / 'include'}"),
            *(library, f"-Wl,-rpath,{library.parent}", "-o", program),
        ],
        check=True,
    )
    printed = subprocess.run([program, model], capture_output=True, text=True, check=True).stdout.split()
    with open_session(model) as session:
        expected = session.run(np.full((2, 256, 128, 3), 127, np.uint8))
    np.testing.assert_allclose(np.array(printed, np.float32), expected.ravel(), rtol=1e-3, atol=1e-3)
