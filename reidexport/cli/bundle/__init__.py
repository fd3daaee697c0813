"""``reidexport bundle``: what other programs need to run an artifact."""

import typer

from reidexport.cli.bundle.triton import triton

bundle = typer.Typer(help="Write what other inference servers need to run an artifact.", no_args_is_help=True)
bundle.command("triton")(triton)
