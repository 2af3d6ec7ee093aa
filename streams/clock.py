"""The system clock behind the engine's Clock port."""

import time


class SystemClock:
    """Monotonic seconds and wall-clock milliseconds of this machine."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000
