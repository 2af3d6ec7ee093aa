"""What the pipeline needs from outside, as Protocols: fakes in tests, Kafka and Redis in a lane."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from schemas.dead_letter import DeadLetter
from schemas.entities import EntityKey
from streams.engine.outcomes import Outcome

Token_contra = TypeVar("Token_contra", contravariant=True)


class Clock(Protocol):
    """Time for the shell; the pure parts get it as an argument."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""

    def now_ms(self) -> int:
        """Return the wall clock in ms since the epoch."""


class BatchAdmission(Protocol):
    """Whether one more batch may start, beyond the lane's own bounds: a word from outside."""

    def refusal(self) -> str:
        """Return why no batch may start now, "" when one may. Cheap: asked many times a second."""

    def entered(self) -> None:
        """A batch started."""

    def left(self) -> None:
        """A batch that had started ended, however it did."""


class DeadLetterSink(Protocol):
    """Where records go that no retry will help."""

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Return once the broker has acknowledged all; raises Transient."""


class CheckpointSink(Protocol):
    """Where a lane that writes Redis notes how far its effects reach."""

    async def store(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Keep the next offset of each (topic, partition); raises Transient."""


class Acknowledger(Protocol[Token_contra]):
    """The consumer's side of an acknowledgement."""

    def acknowledge(self, tokens: Sequence[Token_contra]) -> None:
        """Let the consumer commit past these records, given in order."""


class Ended(NamedTuple):
    """How one record ended, for metrics and traces."""

    key: EntityKey | None
    version: int | None
    outcome: Outcome
    reason: str
    detail: str
    seconds: float


class Observer(Protocol):
    """Told of everything that an operator may ask about; must not block or raise."""

    def ended(self, records: Sequence[Ended]) -> None:
        """Records were settled."""

    def batch_handled(self, size: int, seconds: float) -> None:
        """A handler returned."""

    def retried(self, dependency: str, detail: str, units: int) -> None:
        """Units failed transiently and will be tried again."""

    def flooded(self, detail: str) -> None:
        """Most of what arrives is invalid: the lane pauses itself."""
