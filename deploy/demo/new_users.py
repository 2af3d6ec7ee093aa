"""Measures from outside how soon a new user is rankable: first event accepted to vector readable.

A thread of the demo's process reads through `LiveVectors` the users whose first event Kafka
accepted, and notes when each first had a vector. The clock is the one that noted the
acknowledgement.
"""

import time
from collections import deque
from collections.abc import Sequence

from deploy.demo.background import Background
from deploy.demo.watch import Reader
from schemas.errors import Transient

POLL_SECONDS = 0.01
"""Between two reads while somebody is expected: the resolution of what is measured."""

_IDLE_SECONDS = 0.5
_SHARE_OF_TIME = 0.1
"""Reading takes at most this share of the time, so that it does not slow down what it measures."""


class NewUsers(Background):
    """Looks out for users, as a context manager: the thread lives as long as the block."""

    def __init__(self, reader: Reader) -> None:
        super().__init__("new-users")
        self._reader = reader
        self._arrived: deque[tuple[str, float]] = deque()
        self._expected: dict[str, float] = {}
        self._known: set[str] = set()
        self._rankable_ms: list[float] = []

    def read_from(self, reader: Reader) -> None:
        """Read through another reader from now on."""
        self._reader = reader

    def expect(self, user_id: str, acknowledged_at_ms: float) -> None:
        """Look out for a user; only the first call for one counts. One thread may call."""
        if user_id not in self._known:
            self._known.add(user_id)
            self._arrived.append((user_id, acknowledged_at_ms))
            self._woken.set()

    @property
    def pending(self) -> int:
        """How many users have no vector yet."""
        return len(self._arrived) + len(self._expected)

    @property
    def rankable_ms(self) -> Sequence[float]:
        """How long each took who has one, in order."""
        return tuple(self._rankable_ms)

    def _run(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            self._woken.clear()
            while self._arrived:
                user, acknowledged_at_ms = self._arrived.popleft()
                self._expected[user] = acknowledged_at_ms
            if self._expected:
                self._look()
                spent = time.monotonic() - started
                self._ended.wait(max(POLL_SECONDS, spent * (1 / _SHARE_OF_TIME - 1)))
            else:
                self._woken.wait(_IDLE_SECONDS)

    def _look(self) -> None:
        users = list(self._expected)
        try:
            with self._reader.pin() as view:
                found = view.get([f"user:{user}" for user in users]).found.tolist()
        except Transient:
            return  # the next look will tell
        # Taken after the answer: what was in it was readable now at the latest.
        now_ms = time.time() * 1000
        for user, is_there in zip(users, found, strict=True):
            if is_there:
                self._rankable_ms.append(max(0.0, now_ms - self._expected.pop(user)))
