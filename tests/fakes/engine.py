"""Everything around a Pipeline: a scriptable lane, sinks that fail on demand, and what they saw."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from schemas.dead_letter import DeadLetter
from schemas.entities import EntityKey
from schemas.errors import InvalidInput, Transient
from schemas.reasons import Reason
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import Absorbed, LaneLimits, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.engine.ports import Ended
from streams.engine.standing_aside import StandingAside
from tests.fakes.virtual_time import LoopClock

Partition = tuple[str, int]
Token = tuple[int, int]
"""Partition and offset."""

TOPIC = "input"
DONE = Settled(Outcome.WRITTEN, called=("redis",))


@dataclass(frozen=True, slots=True)
class Change:
    """What the fake lane decodes: `item:<id>` at a version, perhaps not before a time."""

    key: EntityKey
    version: int
    due_at_ms: int = 0
    tokens: int = 1

    @property
    def id(self) -> str:
        return self.key.id


Behaviour = Callable[[Sequence[Change]], Awaitable[Sequence[Result]]]


class FakeLane:
    """Decodes `version`, `version@due_ms` or `!` (invalid); handles as `behaviour` says."""

    name = "fake"

    def __init__(self, behaviour: Behaviour | None = None, *, merges: bool = False) -> None:
        self.behaviour = behaviour or self.write_all
        self.merges = merges
        self.batches: list[list[Change]] = []
        self.written: dict[str, list[int]] = defaultdict(list)
        self.cancelled = 0
        self.running = 0
        self.most_running = 0
        self._keys_running: set[EntityKey] = set()

    def decode(self, record: Record, now_ms: int) -> Change:
        text = (record.value or b"").decode()
        if text.startswith("!"):
            raise InvalidInput(Reason.NOT_JSON, text)
        version, _, due = text.partition("@")
        return Change(EntityKey.parse(record.key or b""), int(version), int(due or 0))

    def key(self, value: Change) -> EntityKey:
        return value.key

    def version(self, value: Change) -> int | None:
        return value.version

    def tokens(self, value: Change) -> int:
        return value.tokens

    def due_at_ms(self, value: Change) -> int:
        return value.due_at_ms

    def absorb(self, waiting: Change, incoming: Change) -> Absorbed[Change]:
        survives = incoming.version >= waiting.version
        outcome = None if self.merges else Outcome.SUPERSEDED
        return Absorbed(incoming if survives else waiting, survives, outcome)

    async def handle(self, batch: Sequence[Change]) -> Sequence[Result]:
        keys = {change.key for change in batch}
        assert len(keys) == len(batch), "an entity twice in a batch"
        assert not keys & self._keys_running, "an entity in two handlers"
        self._keys_running |= keys
        self.batches.append(list(batch))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.behaviour(batch)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
            self._keys_running = self._keys_running - keys

    def forget_running(self) -> None:
        """Let a handler that ignores its cancellation meet its successor."""
        self._keys_running.clear()

    async def write_all(self, batch: Sequence[Change]) -> Sequence[Result]:
        await asyncio.sleep(0.000_1)
        for change in batch:
            self.written[change.id].append(change.version)
        return [DONE] * len(batch)


class FakeAcknowledger:
    """`offsets` holds the acknowledged offsets of each partition, in order."""

    def __init__(self) -> None:
        self.offsets: dict[int, list[int]] = defaultdict(list)
        self.before: Callable[[Token], None] = lambda token: None

    def acknowledge(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            self.before(token)
            partition, offset = token
            self.offsets[partition].append(offset)

    @property
    def count(self) -> int:
        return sum(len(offsets) for offsets in self.offsets.values())


class FakeDeadLetters:
    """Keeps letters; while `is_down` it refuses them."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.is_down = False
        self.calls = 0

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise Transient("kafka", "no broker")
        self.letters += letters


class FakeCheckpoints:
    """Keeps checkpoints; while `is_down` it refuses them, while `gate` is clear it hangs."""

    def __init__(self) -> None:
        self.offsets: dict[Partition, int] = {}
        self.is_down = False
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def store(self, offsets: Mapping[Partition, int]) -> None:
        self.calls += 1
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.is_down:
            raise Transient("redis", "gone")
        self.offsets |= offsets


class FakeAdmission:
    """Lets batches start while `why_not` is empty; counts them."""

    def __init__(self) -> None:
        self.why_not = ""
        self.started = 0
        self.inside = 0

    def refusal(self) -> str:
        return self.why_not

    def entered(self) -> None:
        self.started += 1
        self.inside += 1

    def left(self) -> None:
        self.inside -= 1


class RecordingObserver:
    """Keeps all it is told; `on_flood` may hold the pipeline."""

    def __init__(self) -> None:
        self.records: list[Ended] = []
        self.batches: list[int] = []
        self.retries: list[tuple[str, str, int]] = []
        self.floods: list[str] = []
        self.on_flood: Callable[[str], None] = lambda detail: None

    def ended(self, records: Sequence[Ended]) -> None:
        self.records += records

    def batch_handled(self, size: int, seconds: float) -> None:
        self.batches.append(size)

    def retried(self, dependency: str, detail: str, units: int) -> None:
        self.retries.append((dependency, detail, units))

    def flooded(self, detail: str) -> None:
        self.floods.append(detail)
        self.on_flood(detail)

    def outcomes(self) -> list[str]:
        return [record.outcome.value for record in self.records]


class Bench:
    """A pipeline among fakes, to be used as an async context manager: it runs inside."""

    def __init__(
        self,
        lane: FakeLane,
        limits: LaneLimits | None = None,
        policy: FailurePolicy | None = None,
        *,
        checkpoints: FakeCheckpoints | None = None,
        admission: FakeAdmission | None = None,
        aside: StandingAside | None = None,
    ) -> None:
        self.lane = lane
        self.acks = FakeAcknowledger()
        self.letters = FakeDeadLetters()
        self.observer = RecordingObserver()
        self.checkpoints = checkpoints
        self.generation = 1
        self.next_offset: dict[int, int] = defaultdict(int)
        self.pipeline: Pipeline[Change, Token] = Pipeline(
            lane,
            limits or LaneLimits(),
            policy or FailurePolicy(RetrySchedule(0.2, 15.0)),
            group="group",
            acknowledger=self.acks,
            dead_letters=self.letters,
            observer=self.observer,
            clock=LoopClock(),
            checkpoints=checkpoints,
            admission=admission,
            aside=aside,
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.pipeline.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def admit(self, id_: str, value: object, *, partition: int = 0, offset: int | None = None):
        """Admit a record; returns its offset."""
        if offset is None:
            offset = self.next_offset[partition]
        self.next_offset[partition] = offset + 1
        record = Record(
            TOPIC,
            partition,
            offset,
            f"item:{id_}".encode(),
            str(value).encode(),
            (("trace", b"\x00\xff"),),
            1_000 + offset,
        )
        self.pipeline.admit(record, (partition, offset), generation=self.generation)
        return offset

    def acked(self, partition: int = 0) -> list[int]:
        return self.acks.offsets[partition]
