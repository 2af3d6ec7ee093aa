"""Groups, items with parts, and a knowledge lane that has a way out of overload."""

from collections.abc import Sequence

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import (
    Content,
    Document,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    RegisterName,
)
from schemas.spaces import Space
from schemas.topics import Topic
from schemas.vector_record import VectorHeader, VectorRecord
from streams.engine.outcomes import Result
from streams.lanes.collective import WayOut
from streams.lanes.group_requests import group_key
from streams.lanes.knowledge import KnowledgeLane, Wanted
from streams.settings import KnowledgeSettings
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import DIM, ENCODER_ID, FakeSpaces
from tests.fakes.stores import InMemoryEntityStore
from tests.fakes.version_writer import VersionWriter, ids_shared
from tests.lane_builders import movies
from workers.grouping.groups import Group, Groups
from workers.knowledge.shared_gate import SharedGate
from workers.knowledge.writer import Rejected

RAW: Space = FakeSpaces().raw
OVERLOAD_SECONDS = 30.0


def groups_of(*names: str, encoder_id: str = ENCODER_ID, exemplar: str = "Ran") -> Groups:
    """Groups whose centroids are the first axes: an item belongs to the one its title points to."""
    return Groups(
        name="cut",
        kind=EntityKind.ITEM,
        encoder_id=encoder_id,
        parts=("title",),
        part_dim=DIM,
        mean=np.zeros(DIM, np.float32),
        centroids=np.eye(DIM, dtype=np.float32)[: len(names)],
        groups=tuple(Group(name, 5, ({"title": f"{exemplar} {name}"},)) for name in names),
    )


def item_content(version: int, title: str = "Heat") -> Content:
    fields = {"title": title}
    return Content(version, fields, content_fingerprint(fields), START_MS + version)


def raw_record(axis: int, *, rev: int = 1) -> bytes:
    """Parts of an item whose title points along an axis; no other part."""
    values = np.zeros((len(RAW.parts), DIM), np.float16)
    values[0, axis] = 1
    header = VectorHeader(1, "float16", RAW.dim, 0b001, rev, 1, -1, START_MS, START_MS)
    return VectorRecord(header, values.reshape(-1)).encode()


class Groupings:
    """The groups in use, and the raw space: a test may change both."""

    def __init__(self, groups: Groups | None, space: Space | None = RAW) -> None:
        self.groups = groups
        self.space = space

    def current(self) -> Groups | None:
        return self.groups

    def raw(self) -> Space | None:
        return self.space


class Budget:
    """A BudgetPort that a test spends."""

    def __init__(self) -> None:
        self.spent = 0
        self.is_out = False
        self.is_out_for_shared = False

    def spend(self, tokens: int) -> None:
        self.spent += tokens

    def is_spent(self) -> bool:
        return self.is_out

    def is_spent_for_shared(self) -> bool:
        return self.is_out_for_shared


class OpenGate:
    """Lets every answer about a single entity pass."""

    def judge(self, answer, fields, kind) -> Rejected | None:
        return None


class OverloadWorld:
    """The lane of requests and all it talks to; requests are older than they may be."""

    def __init__(self, groups: Groups | None = None, **settings) -> None:
        self.emitter = FakeEmitter()
        self.documents = InMemoryEntityStore()
        self.writer = VersionWriter()
        self.gate = OpenGate()
        self.budget = Budget()
        self.clock = FakeClock()
        self.groupings = Groupings(groups or groups_of("a", "b"))
        self.settings = KnowledgeSettings(
            overload_seconds=OVERLOAD_SECONDS,
            **{"parts_wait_seconds": 0.4, "share_seconds": 0.01, **settings},
        )
        self.clock.advance(OVERLOAD_SECONDS + 1)
        self.restart()

    def restart(self) -> None:
        """A new process, which remembers nothing."""
        self.lane = self._lane(
            "knowledge", WayOut(self.groupings, self.groupings, SharedGate(movies()))
        )
        self.backlog = self._lane("knowledge-backlog", None)

    def _lane(self, name: str, way_out: WayOut | None) -> KnowledgeLane:
        return KnowledgeLane(
            name,
            emitter=self.emitter,
            documents=self.documents,
            writer=self.writer,
            gate=self.gate,
            domain=movies(),
            settings=self.settings,
            clock=self.clock,
            budget=self.budget,
            way_out=way_out,
        )

    def seed(self, id_: str, version: int = 1, *, axis: int = 0, **registers) -> EntityKey:
        """Store an item with parts, as the encode lane leaves it."""
        key = EntityKey.item(id_)
        document = Document(content=item_content(version), **registers)
        self.documents.seed(key, document, vectors={RAW.name: raw_record(axis)})
        return key

    def merge(self) -> None:
        """Do what the encode lane does with the registers of items and groups."""
        for update in self.emitter.updates:
            stored = self.documents.stored(update.entity, RAW.name)
            merged = stored.document.merge(Document.of(update.register, update.value))
            raw = {} if stored.raw is None else {RAW.name: stored.raw}
            self.documents.seed(update.entity, merged, rev=max(1, stored.rev), vectors=raw)

    async def handle(self, *requests: KnowledgeRequest) -> Sequence[Result]:
        return await self.lane.handle([Wanted(one, one.not_before_ms) for one in requests])

    async def upgrade(self, *requests: KnowledgeRequest) -> Sequence[Result]:
        """Hand requests to the backlog's lane."""
        return await self.backlog.handle([Wanted(one, one.not_before_ms) for one in requests])

    @property
    def upgrades(self) -> list[KnowledgeRequest]:
        return self.emitter.requests(Topic.KNOWLEDGE_BACKLOG)

    @property
    def collective(self) -> list[Factors]:
        """Collective registers emitted so far."""
        return [factors for _, factors in self.factors(RegisterName.COLLECTIVE)]

    @property
    def individual(self) -> list[Factors]:
        """Individual registers of items emitted so far."""
        return [
            factors
            for entity, factors in self.factors(RegisterName.INDIVIDUAL)
            if entity.kind is EntityKind.ITEM
        ]

    def updates(self, register: RegisterName) -> list[KnowledgeUpdate]:
        return [update for update in self.emitter.updates if update.register is register]

    def factors(self, register: RegisterName) -> list[tuple[EntityKey, Factors]]:
        """Registers of this name emitted so far, with whose they are."""
        return [
            (update.entity, update.value)
            for update in self.updates(register)
            if isinstance(update.value, Factors)
        ]

    @property
    def shared_calls(self) -> list[list[str]]:
        """Ids of the items that each shared call was about."""
        return [ids for call in self.writer.requests if (ids := ids_shared(call))]

    def group(self, row: int = 0) -> EntityKey:
        assert self.groupings.groups is not None
        return group_key(self.groupings.groups.groups[row])
