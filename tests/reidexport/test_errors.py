"""The tree of errors is as drawn in the module that defines it."""

import re

from reidexport import errors
from reidexport.errors import ReidExportError


def drawn_tree() -> list[tuple[int, str, int]]:
    """Depth, name and exit status of each line of the drawing; a line without a status has its parent's."""
    tree = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^([│├└─ ]*)(\w+Error)\b(?: +(\d+)(?: |$))?", line):
            tree.append((len(found[1]) // 4, found[2], int(found[3] or ReidExportError.exit_status)))
    return tree


def subclasses(error: type[ReidExportError] = ReidExportError) -> set[type[ReidExportError]]:
    """An error and all that derive from it, wherever they are defined."""
    return {error}.union(*(subclasses(child) for child in error.__subclasses__()))


def test_the_drawn_tree_is_the_real_one() -> None:
    """Every error stands in the drawing, under its parent, with the exit status that the command line returns."""
    drawn = drawn_tree()
    by_name = {name: getattr(errors, name) for _, name, _ in drawn}
    path: list[str] = []
    for depth, name, status in drawn:
        path[depth:] = [name]
        assert by_name[name].exit_status == status, name
        assert depth == 0 or by_name[name].__bases__ == (by_name[path[depth - 1]],), name
    public = {error.__name__ for error in subclasses() if not error.__name__.startswith("_")}
    assert set(by_name) == public == set(errors.__all__)
