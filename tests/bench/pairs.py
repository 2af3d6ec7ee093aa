"""Paired measurements: contenders run alternately, and compared pair by pair. Pure.

A machine's load changes over minutes, so only runs that followed each other are compared, and the
median over the pairs is what counts.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

MIN_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One contender's run: `count` things in wall-clock and in CPU seconds of its process."""

    count: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Things a second of wall clock."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a thing."""
        return self.cpu_seconds / self.count * 1e6


class Bound(StrEnum):
    """On which side of its target a ratio has to be."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratios of pairs of runs; `target` None where there is only something to report."""

    runs: tuple[float, ...]
    target: float | None = None
    bound: Bound = Bound.AT_LEAST

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.runs)

    @property
    def met(self) -> bool | None:
        """Whether the median is on the right side; None without a target."""
        if self.target is None:
            return None
        if self.bound is Bound.AT_LEAST:
            return self.median >= self.target
        return self.median <= self.target

    def to_json(self) -> dict[str, object]:
        """Return what the JSON object says of it."""
        facts: dict[str, object] = {
            "median": rounded(self.median),
            "runs": [rounded(run) for run in self.runs],
        }
        if self.target is not None:
            facts |= {self.bound.value: self.target, "met": self.met}
        return facts


def ratio(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    target: float | None = None,
    bound: Bound = Bound.AT_LEAST,
) -> Ratio:
    """Return ours / theirs, pair by pair; raises ValueError unless there are enough pairs."""
    if len(ours) < MIN_PAIRS:
        raise ValueError(f"{len(ours)} pairs, needed {MIN_PAIRS}")
    return Ratio(tuple(a / b for a, b in zip(ours, theirs, strict=True)), target, bound)


def alternately(contenders: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, contender): in every round each once, and each as often first as the others.

    Nobody always runs after the same neighbour, into the same warm or crowded machine.
    """
    for number in range(rounds):
        shift = number % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            yield number, contender


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile, `share` in (0, 1]; raises ValueError of no values."""
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def rounded(value: float) -> float:
    """Return `value` to four significant digits: more would be noise."""
    return float(f"{value:.4g}")
