"""Ctrl-C and SIGTERM while processes are being started and stopped: nothing may be left behind.

The first signal raises `Interrupted` on the main thread, later ones are ignored, so that stopping
is not itself interrupted. Inside `shielded()` the signal waits until the block has ended.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):  # named as KeyboardInterrupt is, and as fatal
    """The demo was told to end; `exit_code` is 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """Handles the signals for the length of a `with catching()` block."""

    def __init__(self) -> None:
        self._shields = 0
        self._received: int | None = None
        self._raised = False

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Raise Interrupted at the first signal; restore the former handlers at the end."""
        former = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Put off a signal until the end of the block: what it starts can be noted down."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        self._raise_if_due()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self._received is not None and not self._raised and not self._shields:
            self._raised = True
            raise Interrupted(self._received)
