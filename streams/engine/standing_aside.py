"""Handlers that only wait for one another: they take no place of those that work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StandingAside:
    """How many handlers of a lane stand aside now. The lane says so, the pipeline looks.

    Bounded by the records that the pipeline holds.
    """

    def __init__(self) -> None:
        self._standing = 0
        self._woken: Callable[[], None] = _nobody

    @property
    def freed(self) -> int:
        """Places that are free because somebody stands aside."""
        return self._standing

    def wake(self, woken: Callable[[], None]) -> None:
        """Call this whenever a place becomes free."""
        self._woken = woken

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Stand aside until the block ends, however it does."""
        self._standing += 1
        self._woken()
        try:
            yield
        finally:
            self._standing -= 1


def _nobody() -> None:
    """Wake nobody: no pipeline looks yet."""
