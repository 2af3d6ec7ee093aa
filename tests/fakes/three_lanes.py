"""The items, knowledge and encode lanes around a broker in memory, with crashes anywhere.

The lane of knowledge requests may be overloaded; another one of the same code works the backlog.

Every effect outside a process (a record produced, a document put, something seen, a call of the
writer) is a place where the process may end. What it had not committed is delivered again, to a new
process that remembers nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.entities import EntityKey
from schemas.events import DecodeLimits
from schemas.knowledge import EntityRecord
from schemas.representation_record import RepresentationRecord
from schemas.topics import Topic
from streams.emitter import Outgoing
from streams.engine.lane import Lane, Record
from streams.engine.outcomes import Settled
from streams.lanes.collective import WayOut
from streams.lanes.encode import EncodeLane
from streams.lanes.items import ItemsLane
from streams.lanes.knowledge import KnowledgeLane
from streams.settings import KnowledgeSettings
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.encoding import FakeSpaces, HashEncoder, SumAdaptor, representer
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore, InMemorySeen
from tests.fakes.version_writer import VersionWriter
from tests.lane_builders import POLICY, movies

INPUTS = {
    "items": Topic.CATALOG_ITEMS,
    "knowledge": Topic.KNOWLEDGE_REQUESTS,
    "knowledge-backlog": Topic.KNOWLEDGE_BACKLOG,
    "encode": Topic.KNOWLEDGE,
}
DOMAIN = movies()

OVERLOAD_SECONDS = 0.001
"""The time that one record takes to be produced here: most requests wait longer."""


class Crash(Exception):
    """The process ended here."""


@dataclass(slots=True)
class Fuse:
    """Ends a process before its next effect once `left` effects are done; None never does."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Crash
            self.left -= 1


@dataclass(frozen=True, slots=True)
class Step:
    """A lane's process reads `size` records and ends after `effects` more; None: it lives on.

    With `rival_size`, a second owner of the partition, not yet aware that it lost it, handles the
    first so many of the records at the same time.
    """

    lane: str
    size: int
    effects: int | None = None
    rival_size: int = 0


class ThreeLanes:
    """The world: topics of one partition, Redis, a clock and the writer's ledger of calls."""

    def __init__(
        self, overload: WayOut | None = None, *, longest_wait_seconds: float = 1e6
    ) -> None:
        self.overload = overload
        self.longest_wait_seconds = longest_wait_seconds
        self.topics: dict[str, list[Record]] = defaultdict(list)
        self.committed: dict[str, int] = dict.fromkeys(INPUTS, 0)
        self.seen = InMemorySeen()
        self.store = InMemoryEntityStore()
        self.clock = FakeClock()
        self.encoder = HashEncoder()
        self.spaces = FakeSpaces(SumAdaptor())
        self.calls = 0
        self._processes: dict[str, tuple[Lane[Any], Fuse]] = {}

    def produce(self, topic: str, message: Outgoing | Record) -> None:
        log = self.topics[topic]
        log.append(Record(topic, 0, len(log), message.key, message.value, (), START_MS))

    async def take(self, step: Step) -> None:
        lane, fuse = self._process(step.lane)
        records = self._next_records(step.lane, step.size)
        if not records:
            return
        fuse.left = step.effects
        rival = self._start(step.lane, Fuse()) if step.rival_size else None
        runs = [self._run(lane, records)]
        if rival is not None:
            runs.append(self._run(rival, records[: step.rival_size]))
        done, *_ = await asyncio.gather(*runs)
        fuse.left = None
        if done:
            self.committed[step.lane] += len(records)
        else:
            del self._processes[step.lane]

    async def settle(self) -> None:
        """Run without crashes until nothing is left to read; fails if that never comes."""
        left: list[str] = []
        for _ in range(500):
            left = [name for name in INPUTS if self._next_records(name, 1)]
            if not left:
                return
            for name in left:
                await self.take(Step(name, 4))
        raise AssertionError(f"{left} never came to an end")

    def last_entity(self, key: EntityKey) -> EntityRecord | None:
        value = self._last(Topic.ENTITIES, key)
        return None if value is None else EntityRecord.decode(value)

    def last_representation(self, key: EntityKey) -> RepresentationRecord | None:
        value = self._last(Topic.REPRESENTATIONS, key)
        return None if value is None else RepresentationRecord.decode(value)

    def _last(self, topic: str, key: EntityKey) -> bytes | None:
        values = [log.value for log in self.topics[topic] if log.key == key.encode()]
        return values[-1] if values else None

    def _next_records(self, lane: str, size: int) -> Sequence[Record]:
        start = self.committed[lane]
        return self.topics[INPUTS[lane]][start : start + size]

    def _process(self, name: str) -> tuple[Lane[Any], Fuse]:
        if name not in self._processes:
            fuse = Fuse()
            self._processes[name] = (self._start(name, fuse), fuse)
        return self._processes[name]

    async def _run(self, lane: Lane[Any], records: Sequence[Record]) -> bool:
        """Return whether everything was handled."""
        try:
            results = await lane.handle(coalesced(lane, records, self.clock.now_ms()))
        except Crash:
            return False
        except ExceptionGroup as group:
            if group.subgroup(Crash) is None:
                raise
            return False
        return all(isinstance(result, Settled) for result in results)

    def _start(self, name: str, fuse: Fuse) -> Lane[Any]:
        emitter = _Emitter(self, fuse)
        store = _Store(self.store, fuse)
        match name:
            case "items":
                seen = _Seen(self.seen, fuse)
                return ItemsLane(emitter, seen, POLICY, DecodeLimits(), self.clock)
            case "knowledge" | "knowledge-backlog":
                return KnowledgeLane(
                    name,
                    emitter=emitter,
                    documents=store,
                    writer=_Writer(self, fuse),
                    gate=AcceptAll(),
                    domain=DOMAIN,
                    settings=KnowledgeSettings(
                        overload_seconds=OVERLOAD_SECONDS,
                        longest_wait_seconds=self.longest_wait_seconds,
                        parts_wait_seconds=0,
                        share_seconds=0,
                    ),
                    clock=self.clock,
                    way_out=self.overload if name == "knowledge" else None,
                )
            case _:
                return EncodeLane(
                    store=store,
                    representer=representer(self.encoder),
                    spaces=self.spaces,
                    emitter=emitter,
                    clock=self.clock,
                    executor=InlineExecutor(),
                )


def coalesced(lane: Lane[Any], records: Sequence[Record], now_ms: int) -> list[Any]:
    """Return what the engine would hand to a handler when all records wait together."""
    waiting: dict[EntityKey, Any] = {}
    for record in records:
        value = lane.decode(record, now_ms)
        there = waiting.get(lane.key(value))
        waiting[lane.key(value)] = value if there is None else lane.absorb(there, value).value
    return list(waiting.values())


class AcceptAll:
    """A gate without a keeper."""

    def judge(self, answer: Any, fields: Mapping[str, Any], kind: Any) -> None:
        return None


class _Emitter:
    def __init__(self, world: ThreeLanes, fuse: Fuse) -> None:
        self._world = world
        self._fuse = fuse

    async def emit(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            await asyncio.sleep(0)
            self._fuse.burn()
            self._world.clock.advance(0.001)
            self._world.produce(message.topic, message)


class _Store:
    def __init__(self, store: InMemoryEntityStore, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    async def load(self, keys, raw_space):
        return await self._store.load(keys, raw_space)

    async def put(self, writes):
        self._fuse.burn()
        return await self._store.put(writes)


class _Seen:
    def __init__(self, seen: InMemorySeen, fuse: Fuse) -> None:
        self._seen = seen
        self._fuse = fuse

    async def load(self, keys):
        return await self._seen.load(keys)

    async def store(self, rows):
        self._fuse.burn()
        await self._seen.store(rows)


class _Writer(VersionWriter):
    def __init__(self, world: ThreeLanes, fuse: Fuse) -> None:
        super().__init__(latency_seconds=0.0)
        self._world = world
        self._fuse = fuse

    async def write(self, prompt, request, *, priority):
        self._fuse.burn()
        self._world.calls += 1
        return await super().write(prompt, request, priority=priority)
