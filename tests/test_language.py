"""The language of CONTRIBUTING's glossary: in every help text, docstring and message, and in names."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from reidexport.cli.app import app as reidexport_app
from tests import ROOT
from train.cli import app as train_app

CODE = ("reidexport", "engines/python", "train", "benchmarks")
LANGUAGE = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Language\n")[2].partition("\n## ")[0]
FIXED_BY_OTHERS = {"TritonPythonModel"}  # Triton looks for a class of that name in every model


def banned_words() -> list[str]:
    """The words in code type in the last column of the glossary."""
    rows = [line.split("|") for line in LANGUAGE.splitlines() if line.startswith("| ")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row[3])]


def banned_names() -> set[str]:
    """The names in code type after "the names"."""
    return set(re.findall(r"`(\w+)`", LANGUAGE.partition("Not so: the names")[2].partition(".\n")[0]))


@cache
def banned_pattern() -> re.Pattern[str]:
    """Any of the banned words, as a whole word; those in small letters in any case."""
    patterns = []
    for word in banned_words():
        pattern = re.escape(word).replace(r"\*", r"\w*").replace(r"\ ", r"\s+")
        patterns.append(pattern if word.islower() else f"(?-i:{pattern})")
    return re.compile(rf"\b({'|'.join(patterns)})\b", re.IGNORECASE)


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the project that is not a test."""
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the code with a space in it: docstrings, messages, help texts; each with its place."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield f"{path}:{node.lineno}", node.value


def help_texts(command: typer.models.Any, name: str) -> Iterator[tuple[str, str]]:
    """What --help prints, of a command and of those below it."""
    context = typer.Context(command, info_name=name)
    yield f"{name} --help", command.get_help(context)
    for below, child in getattr(command, "commands", {}).items():
        yield from help_texts(child, f"{name} {below}")


def pages() -> Iterator[tuple[str, str]]:
    """Every page of the documentation but the glossary itself."""
    for path in [
        ROOT / "README.md",
        ROOT / "DESIGN.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        yield str(path.relative_to(ROOT)), path.read_text()


def found_in(places: Iterator[tuple[str, str]]) -> list[str]:
    """Each banned word that is found, with its place."""
    return [f"{place}: {match[0]!r}" for place, text in places for match in banned_pattern().finditer(text)]


def test_the_glossary_is_read() -> None:
    """The test has words to look for, and would find them."""
    assert {"mend*", "halve*", "colour*"} <= set(banned_words())
    assert {"say", "_told", "_Again", "_LOOKS"} <= banned_names()
    assert found_in(iter([("here", "FP16 Halves it; mended")])) == ["here: 'Halves'", "here: 'mended'"]


def test_docstrings_and_messages_use_the_words_of_the_glossary() -> None:
    """No docstring, message or help text in the code has a word that the glossary replaces."""
    assert found_in(texts()) == []


@pytest.mark.parametrize(("app", "name"), [(reidexport_app, "reidexport"), (train_app, "python -m train")])
def test_help_uses_the_words_of_the_glossary(app: typer.Typer, name: str) -> None:
    """Neither does what --help prints, of any command."""
    printed = list(help_texts(typer.main.get_command(app), name))
    assert len(printed) > 5
    assert found_in(iter(printed)) == []


def test_documents_use_the_words_of_the_glossary() -> None:
    """Neither does a page of the documentation."""
    assert found_in(pages()) == []


def test_names_are_those_of_the_glossary() -> None:
    """Nothing in the code is named as the glossary says that nothing is."""
    found = [
        f"{path}:{node.lineno} {name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if (name := getattr(node, "name", None) or getattr(node, "arg", None) or getattr(node, "id", None))
        in banned_names()
    ]
    assert found == []


def test_every_class_has_a_name_of_its_own() -> None:
    """Two classes of the project with one name would be two things with one word."""
    names = Counter(
        node.name
        for _, tree in trees()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name not in FIXED_BY_OTHERS
    )
    assert [name for name, count in names.items() if count > 1] == []
