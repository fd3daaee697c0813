"""The commands, gathered."""

from typing import Annotated

import typer
from typer import Option

from reidexport.cli.adapt import adapt
from reidexport.cli.bench import bench
from reidexport.cli.bundle import bundle
from reidexport.cli.demo import demo
from reidexport.cli.doctor import doctor
from reidexport.cli.embed import EmbedCommand, embed
from reidexport.cli.eval import eval_
from reidexport.cli.forget import forget
from reidexport.cli.inspect import inspect
from reidexport.cli.onnx import onnx
from reidexport.cli.parity import parity
from reidexport.cli.report import report
from reidexport.cli.search import search
from reidexport.cli.serve import serve
from reidexport.cli.store import store
from reidexport.cli.trt import trt
from reidexport.cli.verify import verify
from reidexport.cli.web import web

app = typer.Typer(
    help="From a person re-identification checkpoint to an engine that provably gives the same answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (onnx, adapt, trt, verify, parity, eval_, embed, store, search, web, forget, serve, bench, report,
             inspect, doctor, demo)  # fmt: skip
for command in _COMMANDS:
    app.command(command.__name__.strip("_"), cls=EmbedCommand if command is embed else None)(command)
app.add_typer(bundle, name="bundle")


def _print_version(wanted: bool) -> None:
    if wanted:
        from reidexport.version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options before any command."""
