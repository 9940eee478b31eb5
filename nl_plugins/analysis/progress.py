"""How far a long measurement is."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr how many steps are done.

    In a terminal it is a bar with the time left, elsewhere a line for each
    step.

    Args:
        total (int): Number of steps.

    Yields:
        Callable: To be called at the start of each step, with its name.
    """
    console = Console(stderr=True)
    started = itertools.count()
    if not console.is_terminal:
        yield lambda step: print(
            f'   {next(started) + 1}/{total} {step}', file=sys.stderr, flush=True
        )
        return
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
        TextColumn('{task.description}'),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task('', total=total)
        yield lambda step: bar.update(
            task, completed=next(started), description=step, refresh=True
        )
