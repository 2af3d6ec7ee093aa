"""Says that users did more than counts: at most once in ten seconds, and about nobody by name."""

import structlog

log = structlog.get_logger("freshet.behaviour")

LOG_EVERY_SECONDS = 10.0


class LimitedEvents:
    """Adds up the events that the bound per user and minute let go, between two log lines."""

    def __init__(self, max_per_minute: int) -> None:
        self._max_per_minute = max_per_minute
        self._unsaid = 0
        self._said_at: float | None = None

    def note(self, events: int, *, now: float) -> None:
        """Add events; `now` in monotonic seconds."""
        self._unsaid += events
        if self._said_at is None or now - self._said_at >= LOG_EVERY_SECONDS:
            log.warning(
                "behaviour_limited", events=self._unsaid, max_per_minute=self._max_per_minute
            )
            self._unsaid, self._said_at = 0, now
