"""Circuits: which dependency is failing, when to try again, and what it answered meanwhile.

A circuit opens when calls fail and none succeeds in between; while one is open the lane holds its
partitions and sends a single probe at a time. Pure: time and jitter are passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Exponential backoff with full jitter between half and the whole delay (AWS, 2015)."""

    first_seconds: float = 0.2
    longest_seconds: float = 15.0

    def delay(self, attempt: int, jitter: float) -> float:
        """Return the seconds to wait after the `attempt`-th failure (from 1); jitter in [0, 1)."""
        ceiling = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 30))
        return ceiling * (0.5 + jitter / 2)


@dataclass(slots=True)
class Circuit:
    """One dependency: consecutive failures, failed probes, and successes ever seen."""

    failures: int = 0
    probes: int = 0
    retry_at: float = 0.0
    successes: int = 0
    last_detail: str = ""
    whole_batch: bool = False

    def close(self) -> None:
        """Note that it works."""
        self.failures = 0
        self.probes = 0
        self.retry_at = 0.0


class Circuits:
    """The circuits of a lane, by dependency name."""

    def __init__(
        self, schedule: RetrySchedule, jitter: Callable[[], float], *, opens_after: int = 3
    ) -> None:
        self._schedule = schedule
        self._jitter = jitter
        self._opens_after = opens_after
        self._circuits: dict[str, Circuit] = {}
        self._troubles: dict[str, str] = {}

    def succeeded(self, dependency: str, calls: int = 1) -> None:
        """Note calls that worked: the circuit closes."""
        circuit = self._circuits.setdefault(dependency, Circuit())
        circuit.successes += calls
        circuit.close()

    def completed(self) -> None:
        """Note that a handler finished a batch: what stops whole batches is working again."""
        for circuit in self._circuits.values():
            if circuit.whole_batch:
                circuit.successes += 1
                circuit.close()

    def failed(
        self, dependency: str, detail: str, *, now: float, whole_batch: bool, retry_after: float
    ) -> float:
        """Note a failed call; return the time (same clock as `now`) of the next attempt.

        A whole batch that met the same trouble opens the circuit at once. Calls that were under way
        when it opened fail late; only a failure after the time of the next attempt counts as a
        failed probe and doubles the wait.
        """
        circuit = self._circuits.setdefault(dependency, Circuit())
        circuit.failures += 1
        if whole_batch:
            circuit.failures = max(circuit.failures, self._opens_after)
        circuit.whole_batch = whole_batch
        circuit.last_detail = detail
        if circuit.failures >= self._opens_after and now >= circuit.retry_at:
            circuit.probes += 1
            circuit.retry_at = now + self._schedule.delay(circuit.probes, self._jitter())
        circuit.retry_at = max(circuit.retry_at, now + retry_after)
        return circuit.retry_at

    def successes(self, dependency: str) -> int:
        """Return how often the dependency ever answered: evidence against a record that fails."""
        circuit = self._circuits.get(dependency)
        return 0 if circuit is None else circuit.successes

    def troubled(self, name: str, detail: str) -> None:
        """Note something that fails beside the handlers: it is reported, but holds no batch."""
        self._troubles[name] = detail

    def untroubled(self, name: str) -> None:
        """Note that it works again."""
        self._troubles.pop(name, None)

    def open_circuits(self) -> dict[str, str]:
        """Return dependency -> what it last said, of everything that is failing."""
        return self._troubles | {
            name: circuit.last_detail
            for name, circuit in self._circuits.items()
            if circuit.failures >= self._opens_after
        }

    def blocked_until(self) -> float | None:
        """Return when the next probe may go, None while no circuit is open."""
        times = [
            circuit.retry_at
            for circuit in self._circuits.values()
            if circuit.failures >= self._opens_after
        ]
        return max(times) if times else None
