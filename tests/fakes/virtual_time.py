"""An event loop whose time jumps to the next timer as soon as nothing else is left to do.

Minutes of backoff pass in microseconds, and a test that would wait for ever fails at once.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine

from tests.fakes.clock import START_MS

START = 1_000.0


class Deadlock(AssertionError):
    """Nothing is ready, nothing is scheduled: whoever waits would wait for ever."""


class _JumpingSelector(selectors.SelectSelector):
    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None):
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock("every task waits for another one")
            self.loop.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 1,000 s."""

    def __init__(self) -> None:
        self.now = START
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class LoopClock:
    """The engine's Clock on the running loop's time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return START_MS + round((self.monotonic() - START) * 1000)


def in_virtual_time(test: Callable[..., Coroutine[object, object, None]]) -> Callable[..., None]:
    """Run an async test on a VirtualTimeLoop."""

    @functools.wraps(test)
    def run(*args, **kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def run_virtually(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine to its end on a new VirtualTimeLoop."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(coroutine)
