"""Events sent at a steady rate, each watched from its acknowledgement until its vector can be read.

Reads as a ranker does, in a process that is none of the lanes.
"""

import time
from collections.abc import Callable
from itertools import islice

from tests.bench.workbench import BenchFailedError
from workers.live.live_vectors import LiveVectors

_POLL_SECONDS = 0.001
_MOST_ASKED = 16
_PATIENCE_SECONDS = 60.0


class ArrivalWatch:
    """When events about entities without a vector were acknowledged, until they have one."""

    def __init__(self, live: LiveVectors) -> None:
        self._live = live
        self._waiting: dict[str, float] = {}
        self.milliseconds: list[float] = []

    def acknowledged(self, key: str) -> None:
        """Note that the event about an entity is in Kafka; called by the producer's thread."""
        self._waiting[key] = time.perf_counter()

    def send_all(self, send: Callable[[], None], count: int, per_second: float) -> list[float]:
        """Call `send` so often, at that rate; return ms from acknowledgement to each vector."""
        started = time.perf_counter()
        sent = 0
        while len(self.milliseconds) < count:
            now = time.perf_counter()
            if sent < count and now >= started + sent / per_second:
                send()
                sent += 1
            self._look()
            if now > started + count / per_second + _PATIENCE_SECONDS:
                raise BenchFailedError(
                    f"{count - len(self.milliseconds)} of {count} vectors never became readable"
                )
            time.sleep(_POLL_SECONDS)
        return self.milliseconds

    def _look(self) -> None:
        # The oldest alone: where a backlog grows, looking for all of it would slow it down further.
        asked = list(islice(tuple(self._waiting), _MOST_ASKED))
        if not asked:
            return
        with self._live.pin() as view:
            got = view.get(asked)
        now = time.perf_counter()
        for key, there in zip(asked, got.found, strict=True):
            if there:
                self.milliseconds.append((now - self._waiting.pop(key)) * 1000)
