"""Whether to wait for a fuller batch: only while records keep arriving, never at low load. Pure."""


class ArrivalRate:
    """An estimate of records per second from the counts between looks."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last_look = 0.0
        self._arrived = 0

    def arrived(self, count: int = 1) -> None:
        """Note arrivals."""
        self._arrived += count

    def expects_within(self, seconds: float, *, now: float) -> float:
        """Return how many records the next `seconds` should bring."""
        elapsed = now - self._last_look
        if elapsed >= 0.002:  # a shorter span says more about task switching than about load
            # Half the weight decays in 50 ms, so a burst's end is noticed within a few batches.
            weight = min(1.0, elapsed / 0.1)
            self._rate += weight * (self._arrived / elapsed - self._rate)
            self._last_look = now
            self._arrived = 0
        return self._rate * seconds
