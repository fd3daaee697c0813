"""What ``from reidexport import …`` offers: typed for the user's own checks, explained in docstrings and in docs/."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import reidgallery
import reidruntime

import reidexport
from tests import ROOT

PACKAGES = (reidexport, reidruntime, reidgallery)
PUBLIC = [(package.__name__, name) for package in PACKAGES for name in package.__all__]

PROGRAM = """
from reidexport import Limits, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidgallery import Gallery, load_gallery
from reidruntime import open_session

reveal_type(onnx_from_graph(graph_from_checkpoint(load_checkpoint("model.pth")), "model.onnx"))
with open_session("model.onnx") as session:
    embeddings = session.embed(["a.jpg"])
gallery = Gallery(dim=embeddings.shape[1], metric=session.manifest.metric)
reveal_type(gallery.search(embeddings, k=10).indices)
reveal_type(load_gallery("people.gallery"))
Limits(min_cosine="high")
"""


def test_a_users_strict_mypy_sees_types(tmp_path: Path) -> None:
    """Mypy --strict finds the types of all three packages, and the one mistake of a program that uses them."""
    (tmp_path / "program.py").write_text(PROGRAM)
    cache = ROOT / ".mypy_cache" / "users_program"  # reading torch's types takes 20 s the first time
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), "program.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    revealed = re.findall(r'Revealed type is "([\w.]+)', done.stdout)
    assert revealed == [
        "reidruntime.artifact.manifest.Manifest",
        "numpy.ndarray",
        "reidgallery.gallery.Gallery",
    ]
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert 'Argument "min_cosine" to "Limits" has incompatible type "str"' in errors[0]


def public_callables(thing: object) -> Iterator[tuple[str, object]]:
    """A function, or a class with its public methods, each by its name."""
    name = getattr(thing, "__name__", "")
    yield name, thing
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            if inspect.isfunction(value) and not method.startswith("_"):
                yield f"{name}.{method}", value


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: value)
def test_every_public_name_is_documented(package: str, name: str) -> None:
    """It has a docstring that names every parameter with its meaning, and docs/ has a word on it."""
    thing = getattr(sys.modules[package], name)
    for called, value in public_callables(thing):
        docstring = inspect.getdoc(value) or ""
        assert docstring, called
        if value is thing and inspect.isfunction(value):  # a method may refer to the one that it stands for
            parameters = [each for each in inspect.signature(value).parameters if each not in ("self", "_")]
            missing = [each for each in parameters if not re.search(rf"\b{each}\b", docstring)]
            assert missing == [], called
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert re.search(rf"\b{name}\b", pages), f"no page of docs/ mentions {package}.{name}"
