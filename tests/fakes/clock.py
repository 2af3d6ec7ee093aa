"""A clock that moves only when told to."""

from streams.engine.ports import Clock

START_MS = 1_700_000_000_000


class FakeClock(Clock):
    """The engine's Clock: monotonic seconds and wall ms advance together."""

    def __init__(self, *, now_ms: int = START_MS, monotonic: float = 1_000.0) -> None:
        self._now_ms = now_ms
        self._monotonic = monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._now_ms += round(seconds * 1000)
