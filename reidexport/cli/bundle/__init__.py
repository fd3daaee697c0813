"""``reidexport bundle``: what other programs need to run an artifact."""

import typer

from reidexport.cli.bundle.deepstream import deepstream
from reidexport.cli.bundle.triton import triton

bundle = typer.Typer(help="Write what other programs need to run an artifact.", no_args_is_help=True)
bundle.command("deepstream")(deepstream)
bundle.command("triton")(triton)
