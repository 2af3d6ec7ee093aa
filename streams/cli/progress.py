"""The bar that commands show on a terminal while they compute: what is done, of how much."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streams.cli.output import stderr


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function to call with what is done, how much of it, and of how much (0: unknown)."""
    from rich.progress import Progress

    with Progress(console=stderr(), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, done, total: progress.update(
            task, description=what, completed=done, total=total or None
        )
