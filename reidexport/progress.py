"""One progress bar for everything that takes long."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ProgressBar = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on standard error, where that is a terminal.

    Yields:
        A function to call with the number of items done so far; None where no terminal shows it.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn(description), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def no_progress_bar(description: str, total: int) -> AbstractContextManager[None]:
    """A progress bar that shows nothing."""
    return nullcontext()
