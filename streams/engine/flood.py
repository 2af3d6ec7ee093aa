"""The flood guard: when most of what arrives is invalid, the fault is upstream, not in a record.

Emptying the topic into the dead letters would only move the problem, so the lane pauses instead
until an operator resumes it. Idea: arroyo's DlqLimit. Pure.
"""

from collections import deque


class FloodGuard:
    """Share of invalid records among the last `window`; says once when it reaches `share`."""

    def __init__(self, *, share: float, window: int) -> None:
        self._limit = share * window
        self._window = window
        self._recent: deque[bool] = deque(maxlen=window)
        self._invalid = 0
        self._on = False

    def saw(self, *, invalid: bool) -> bool:
        """Note one record; return whether a flood begins with it (never before a full window)."""
        recent = self._recent
        if len(recent) == self._window and recent[0]:
            self._invalid -= 1
        recent.append(invalid)
        self._invalid += invalid
        if self._invalid < self._limit or len(recent) < self._window:
            self._on = False
            return False
        begins = invalid and not self._on
        self._on = self._on or invalid
        return begins

    def reset(self) -> None:
        """Start a new window (after a resume)."""
        self._recent.clear()
        self._invalid = 0
        self._on = False
