"""``reidexport doctor``: what this machine can do, and what to install for more."""

import os

import typer
from rich.console import Console
from rich.text import Text

from reidexport.cli.output import JsonOption
from reidexport.records.reading import write_record


def doctor(json_file: JsonOption = None) -> None:
    """Say what this machine can do, and what to install for more; exit status 1 when something is broken.

    Looks at the processor, NVIDIA's driver and GPUs, the packages and whether they get along, the environment,
    and the data sets under REIDEXPORT_DATA.
    """
    from reidexport.doctor import examine_this_machine

    examination = examine_this_machine(os.environ)
    write_record(json_file, examination)
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(finding.topic) for finding in examination.findings)
    styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
    for finding in examination.findings:
        console.print(
            Text(f"{finding.level:8}", styles[finding.level]),
            f"{finding.topic:{width}}  {finding.text}",
            markup=False,
        )
        if finding.advice:
            console.print(f"{'':{width + 11}}→ {finding.advice}", markup=False)
    if not examination.healthy:
        raise typer.Exit(1)
