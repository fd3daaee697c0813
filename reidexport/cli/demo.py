"""``reidexport demo``: the whole way on drawn people."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from reidexport.cli.output import log, text_table


def demo(
    out: Annotated[
        Path, Option(metavar="DIR", help="Folder to make; an earlier demo there is replaced.")
    ] = Path("demo"),
) -> None:
    """Draw people, train a small network on them, export it, verify, evaluate and measure it.

    Needs a checkout, for the trainer; neither a GPU nor a network connection. Takes two to three minutes on two
    cores. Exit status 1 when a file fails verification.
    """
    from reidexport.demo import run_demo
    from reidexport.demo.summary import FILES, accuracy_table, parity_table, speed_table

    summary = run_demo(out, log=log)
    for table in (accuracy_table, parity_table, speed_table):
        print(text_table(table(summary)), end="\n\n")
    for name in FILES:
        print(out / name)
    if not summary.passed:
        for artifact in summary.artifacts:
            for failure in artifact.verify.failures:
                log(f"FAILED: {artifact.artifact}: {failure}")
        raise typer.Exit(1)
