"""The options of every command that reads a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from reidexport.data import Dataset

DatasetOption = Annotated[
    str | None, Option(metavar="NAME", help="Which data set, where the folder holds several.")
]


@dataclass(frozen=True)
class DataOptions:
    """The data set to score on."""

    data: Annotated[Path, Option(metavar="ROOT", help="Data set folder, or the folder that holds it.")]
    dataset: DatasetOption = None

    def load(self) -> "Dataset":
        """The data set, with the errors of :func:`reidexport.data.load_dataset`."""
        from reidexport.data import load_dataset

        return load_dataset(self.data, self.dataset)
