"""The options of every command that sets up a server."""

from dataclasses import dataclass
from typing import Annotated

from typer import Option


@dataclass(frozen=True)
class BatchingOptions:
    """Which requests a server answers in one run of the network."""

    max_batch: Annotated[
        int | None, Option(min=1, help="Images per run; the artifact's maximum or 32 if left out.")
    ] = None
    max_queue_delay_us: Annotated[
        int, Option(min=0, help="How long a batch that is not full waits for more.")
    ] = 500
