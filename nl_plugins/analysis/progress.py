"""How far a long measurement is."""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr how many steps are done, and the time left.

    In a terminal it is a bar, elsewhere a line for each step. The time left is
    that of the mean step; rich's own forgets steps of more than half a minute.

    Args:
        total (int): Number of steps.

    Yields:
        Callable: To be called at the start of each step, with its name.
    """
    console = Console(stderr=True)
    started, start = itertools.count(), time.monotonic()

    def describe(step: str) -> tuple[int, str]:
        done, left = next(started), ''
        if done:
            seconds = (time.monotonic() - start) / done * (total - done)
            minutes = f'{seconds / 60:.0f} min' if seconds > 90 else f'{seconds:.0f} s'
            left = f', {minutes} left'
        return done, f'{done + 1} of {total}{left}: {step}'

    if not console.is_terminal:
        yield lambda step: print('  ', describe(step)[1], file=sys.stderr, flush=True)
        return
    columns = BarColumn(20), TimeElapsedColumn(), TextColumn('{task.description}')
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task('', total=total)

        def tell(step: str) -> None:
            done, text = describe(step)
            bar.update(task, completed=done, description=text, refresh=True)

        yield tell
