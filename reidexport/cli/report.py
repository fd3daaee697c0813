"""``reidexport report``: results as one HTML page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, log
from reidexport.cli.shared_options import (
    CheckpointOptions,
    DatasetOption,
    ForeignOptions,
    RunOptions,
    SameCameraOption,
    open_stated,
)
from reidexport.data import load_dataset
from reidexport.errors import InputError
from reidexport.files import check_replaceable
from reidexport.progress import progress_bar


@dataclass(frozen=True)
class PeopleOptions:
    """Whose ranked lists and features the page shows."""

    artifact: Annotated[
        Path | None,
        Option(metavar="CHECKPOINT|ARTIFACT", help="Also show ranked lists and features by this one."),
    ] = None
    data: Annotated[
        Path | None, Option(metavar="ROOT", help="Data set folder for --artifact, or the one that holds it.")
    ] = None
    dataset: DatasetOption = None
    same_camera: SameCameraOption = "drop"


@with_option_groups
def report(
    results: Annotated[
        list[Path],
        Argument(metavar="RESULTS...", help="JSON files of the other commands, or folders of them."),
    ],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE.html", help="The page to write.")],
    *,
    people: PeopleOptions,
    force: ForceOption = False,
    checkpoint: CheckpointOptions,
    run: RunOptions,
    foreign: ForeignOptions,
) -> None:
    """Write results as one HTML page that needs nothing beside it: tables, plots, ranked lists.

    With --artifact and --data the page shows images of the data set: mind its terms before passing it on.
    """
    from reidexport.evaluation.scoring import evaluate
    from reidexport.report import read_results, write_report

    artifact, data = people.artifact, people.data
    if (artifact is None) != (data is None):
        raise InputError("--artifact and --data go together: pass both or neither.")
    if data is None and people != PeopleOptions():
        raise InputError("--dataset and --same-camera are about a data set: pass --artifact and --data too.")
    if artifact is None and (checkpoint, foreign) != (CheckpointOptions(), ForeignOptions()):
        raise InputError("--arch, --size and their like describe --artifact: pass --artifact and --data too.")
    check_replaceable(out, force=force)
    found = read_results(results)
    evaluation = None
    if artifact is not None and data is not None:
        records = load_dataset(data, people.dataset, same_camera=people.same_camera, log=log)
        total = len(records.query) + len(records.scored_gallery)
        with (
            open_stated(artifact, run, checkpoint, foreign) as session,
            progress_bar("embedding", total) as progress,
        ):
            evaluation = evaluate(session, records, progress=progress)
    write_report(out, found, evaluation, artifact.name if artifact else "")
    print(out)
