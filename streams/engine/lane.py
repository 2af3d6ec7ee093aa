"""What a lane is to the engine: decode, key, absorb, handle. No Kafka client, no Faust."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from schemas.entities import EntityKey
from streams.engine.outcomes import Outcome, Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as the engine sees it; `headers` in arrival order, times in ms."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Absorbed(Generic[T]):
    """Two values of one entity folded into one; `loser` is how the one that went is settled.

    `incoming_survives` tells whose record a dead letter would hold. With `loser` None both share
    the survivor's outcome, because the value holds both (registers merge, they do not compete).
    """

    value: T
    incoming_survives: bool
    loser: Outcome | None


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """How much a lane holds and how it forms batches; every queue and wait is bounded by these."""

    max_records: int = 5_000
    max_bytes: int = 64 * 1024 * 1024
    max_batch: int = 256
    max_batch_tokens: int = 1_000_000
    max_batches_in_flight: int = 1
    linger_seconds: float = 0.005


class Lane(Protocol[T]):
    """One handler: a function from a batch of decoded records to one outcome each."""

    @property
    def name(self) -> str:
        """Return the lane's name, as in metrics and topics."""

    def decode(self, record: Record, now_ms: int) -> T:
        """Return the checked value; raises Permanent (dead letter). Pure and fast."""

    def key(self, value: T) -> EntityKey:
        """Return the entity: at most one value of it is in a handler at a time."""

    def version(self, value: T) -> int | None:
        """Return the version for traces, None where a value has none."""

    def tokens(self, value: T) -> int:
        """Return the cost of the value in a batch."""

    def due_at_ms(self, value: T) -> int:
        """Return when the value may be handled (ms since the epoch); 0 for at once."""

    def absorb(self, waiting: T, incoming: T) -> Absorbed[T]:
        """Fold a newly arrived value into the one still waiting for the same entity."""

    async def handle(self, batch: Sequence[T]) -> Sequence[Result]:
        """Return one result for each value, in order, once its effects are durable.

        Entities in a batch are distinct. Raises Transient when all of it met the same trouble.
        Anything else that escapes is a bug and stops the process.
        """
