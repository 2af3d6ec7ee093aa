"""In which order ready units are taken: as they came, or the most pressing first. Pure.

The most pressing first would starve the others for as long as pressing ones come, so every fourth
unit is the one that waits longest. That also moves the offsets on, which only go as a prefix.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")

LONGEST_EVERY = 4

_SLACK = 64
"""Outdated entries worth no tidying up."""


class ReadyOrder(Protocol[S]):
    """What waits for nothing but its turn; each thing is in it once."""

    def __len__(self) -> int:
        """Return how many wait."""

    def append(self, thing: S, /) -> None:
        """Let a thing wait that does not yet."""

    def first(self) -> S:
        """Return whose turn it is; raises IndexError when nothing waits."""

    def popleft(self) -> S:
        """Take whose turn it is; raises IndexError when nothing waits."""

    def changed(self, thing: S) -> None:
        """Note that a thing, waiting or not, may be more pressing than it was."""

    def clear(self) -> None:
        """Forget all."""


class ArrivalOrder(deque[S]):
    """First come, first served."""

    def first(self) -> S:
        """Return what came first."""
        return self[0]

    def changed(self, thing: S) -> None:
        """Do nothing: it came when it came."""


class RankedOrder(Generic[S]):
    """The greatest rank first, of one rank the latest; every fourth is what waits longest."""

    def __init__(self, rank: Callable[[S], int]) -> None:
        self._rank = rank
        self._sequence = 0
        self._taken = 0
        # By arrival; the value is the one entry of the heap that counts.
        self._waiting: OrderedDict[S, int] = OrderedDict()
        self._heap: list[tuple[int, int, S]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, thing: S, /) -> None:
        """Let a thing wait."""
        self._sequence += 1
        self._waiting[thing] = self._sequence
        heapq.heappush(self._heap, (-self._rank(thing), -self._sequence, thing))

    def first(self) -> S:
        """Return whose turn it is."""
        if not self._waiting:
            raise IndexError("nothing waits")
        if (self._taken + 1) % LONGEST_EVERY == 0:
            return next(iter(self._waiting))
        while self._waiting.get(self._heap[0][2]) != -self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def popleft(self) -> S:
        """Take whose turn it is."""
        thing = self.first()
        del self._waiting[thing]
        self._taken += 1
        self._tidy()
        return thing

    def changed(self, thing: S) -> None:
        """Rank a waiting thing anew; it keeps its place among those that wait long."""
        if thing in self._waiting:
            self.append(thing)
            self._tidy()

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        self._heap.clear()

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [entry for entry in self._heap if self._waiting.get(entry[2]) == -entry[1]]
            heapq.heapify(self._heap)
