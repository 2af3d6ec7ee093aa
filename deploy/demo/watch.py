"""Measures freshness from outside: when was an event that Kafka accepted readable by a ranker?

A thread of the demo's process, which is not one of the lanes', reads through `LiveVectors` the
films something is expected of, and notes the first moment at which a vector of at least the
expected version was there. The clock is the one that noted the broker's acknowledgement.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deploy.demo.background import Background
from deploy.demo.plans import Kind
from deploy.demo.schedule import FeedEvent
from schemas.entities import Stage
from schemas.errors import Transient
from workers.live.vectors import Vectors

POLL_SECONDS = 0.005
"""Between two reads while something is expected: the resolution of what is measured."""

_IDLE_SECONDS = 0.5
_SHARE_OF_TIME = 0.2
"""Reading takes at most this share of the time, so that it does not slow down what it measures."""

_MANY = 100
_POLL_MANY_SECONDS = 0.5
"""So much is expected only while films are loaded in bulk, which is measured as a whole."""

Vector = npt.NDArray[np.floating]

_NO_VECTOR: Vector = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Sighting:
    """The first time that an event was seen to have an effect.

    `stage` is what had become readable (CONTENT, INDIVIDUAL; NONE: the film is gone), `vector`
    (dim,) the film's vector at that moment (of films loaded in bulk it is empty: nobody looks at
    it), `vector_stage` its own stage, which may be richer.
    """

    event: FeedEvent
    stage: Stage
    freshness_ms: float
    seen_at_ms: float
    vector: Vector
    vector_stage: Stage


class View(Protocol):
    """What is read at one moment, as rankers read it."""

    def get(self, keys: Sequence[str]) -> Vectors:
        """Return the vectors of entities, in order; raises Transient."""


class Reader(Protocol):
    """How rankers read: `LiveVectors`."""

    def pin(self) -> AbstractContextManager[View]:
        """Give a view of the active space; raises Transient."""


@dataclass(slots=True)
class _Expected:
    event: FeedEvent
    acknowledged_at_ms: float
    missing: set[Stage]


class Watcher(Background):
    """Reads what is expected, as a context manager: the thread lives as long as the block.

    Args:
        reader: how rankers read; closed by whoever made it.
        on_sighting: called on the watcher's thread; has to be quick.
        knowledge_is_sure: every film comes to have knowledge. Else it is looked out for all the
            same, and nobody waits for it.
    """

    def __init__(
        self,
        reader: Reader,
        on_sighting: Callable[[Sighting], None] = lambda _: None,
        *,
        knowledge_is_sure: bool = True,
    ) -> None:
        super().__init__("watcher")
        self._reader = reader
        self._on_sighting = on_sighting
        self._unsure = frozenset() if knowledge_is_sure else frozenset({Stage.INDIVIDUAL})
        self._arrived: deque[_Expected] = deque()
        self._expected: dict[str, list[_Expected]] = {}
        self._sightings: list[Sighting] = []
        self._stages: dict[str, Stage] = {}

    def read_from(self, reader: Reader) -> None:
        """Read through another reader from now on."""
        self._reader = reader

    def expect(self, event: FeedEvent, acknowledged_at_ms: float) -> None:
        """Look out for an event that Kafka accepted at a wall-clock time. Any thread may call."""
        missing = {Stage.NONE} if event.fields is None else {Stage.CONTENT, Stage.INDIVIDUAL}
        self._arrived.append(_Expected(event, acknowledged_at_ms, missing))
        self._woken.set()

    @property
    def pending(self) -> int:
        """How many events have not had their whole effect yet."""
        return len(self._arrived) + len(self._waited_for())

    @property
    def sightings(self) -> Sequence[Sighting]:
        """What was seen so far, in order."""
        return tuple(self._sightings)

    def live(self) -> dict[str, int]:
        """Return how many films are readable at each stage, as far as seen."""
        counts = Counter(list(self._stages.values()))
        return {stage.name.lower(): counts[stage] for stage in Stage if stage is not Stage.NONE}

    def is_live(self, item_id: str) -> bool:
        """Return whether a film was readable when it was looked for last. Any thread may call."""
        return self._stages.get(f"item:{item_id}", Stage.NONE) is not Stage.NONE

    def unseen(self) -> list[str]:
        """Return what is still expected, one line each."""
        return [
            f"{expected.event.item_id} version {expected.event.version}"
            f" ({expected.event.kind}): not seen as {stage.name.lower()}"
            for expected in self._waited_for()
            for stage in sorted(expected.missing - self._unsure)
        ]

    def _waited_for(self) -> list[_Expected]:
        return [
            expected
            for waiting in list(self._expected.values())
            for expected in waiting
            if expected.missing - self._unsure
        ]

    def _run(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            self._woken.clear()
            self._take_arrived()
            if self._expected:
                self._look()
                spent = time.monotonic() - started
                pause = _POLL_MANY_SECONDS if len(self._expected) > _MANY else POLL_SECONDS
                self._ended.wait(max(pause, spent * (1 / _SHARE_OF_TIME - 1)))
            else:
                self._woken.wait(_IDLE_SECONDS)

    def _take_arrived(self) -> None:
        while self._arrived:
            expected = self._arrived.popleft()
            self._expected.setdefault(f"item:{expected.event.item_id}", []).append(expected)

    def _look(self) -> None:
        keys = list(self._expected)
        try:
            with self._reader.pin() as view:
                vectors = view.get(keys)
        except Transient:
            return  # the next look will tell
        # Taken after the answer: what was in it was readable now at the latest.
        now_ms = time.time() * 1000
        for row, key in enumerate(keys):
            waiting = self._expected[key]
            for expected in waiting:
                self._judge(expected, vectors, row, now_ms)
            self._expected[key] = [expected for expected in waiting if expected.missing]
            if not self._expected[key]:
                del self._expected[key]
            self._stages[key] = Stage(int(vectors.stages[row]))

    def _judge(self, expected: _Expected, vectors: Vectors, row: int, now_ms: float) -> None:
        is_bulk = expected.event.kind is Kind.CATALOG
        for stage in sorted(expected.missing & _reached(expected.event, vectors, row)):
            expected.missing.discard(stage)
            sighting = Sighting(
                event=expected.event,
                stage=stage,
                freshness_ms=max(0.0, now_ms - expected.acknowledged_at_ms),
                seen_at_ms=now_ms,
                vector=_NO_VECTOR if is_bulk else vectors.values[row].copy(),
                vector_stage=Stage(int(vectors.stages[row])),
            )
            self._sightings.append(sighting)
            self._on_sighting(sighting)


def _reached(event: FeedEvent, vectors: Vectors, row: int) -> set[Stage]:
    """Return which effects of an event a film's vector shows."""
    if event.fields is None:
        return set() if vectors.found[row] else {Stage.NONE}
    reached: set[Stage] = set()
    if vectors.found[row] and vectors.content_versions[row] >= event.version:
        reached.add(Stage.CONTENT)
    is_individual = vectors.stages[row] == Stage.INDIVIDUAL
    if is_individual and vectors.factors_versions[row] >= event.version:
        reached.add(Stage.INDIVIDUAL)
    return reached
