"""A space from its fitting to its end, on a real Kafka and Redis, rankers reading all along."""

import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from redis.asyncio import Redis

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError, Transient
from schemas.knowledge import Document
from schemas.spaces import Space, SpaceState
from schemas.vector_record import VectorRecord
from streams.backfill import BackfilledItems, OwnTower
from streams.control import read_control
from streams.emitter import KafkaEmitter
from streams.engine.outcomes import Outcome, Settled
from streams.history_log import history_message
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.lanes.encode_space import EncodeSpaceLane, Touched
from streams.raw_space import init
from streams.rebuild import RebuildReport, ViewRebuild, rebuild_command
from streams.settings import Settings
from streams.space_set import SpaceSet
from streams.spaces_admin import SpaceRefused, activate, create, fit, list_spaces, retire
from streams.topic_admin import apply
from streams.user_parts import history_store, tower_options, user_vectors
from streams.user_spaces import UserSpaces
from tests.fakes.clock import FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import HashEncoder
from tests.fakes.inline_executor import InlineExecutor
from tests.history_builders import event, user
from tests.learn_builders import learn_adaptor, small_model
from tests.live_builders import factors, item, removed
from tests.space_builders import (
    PARTITIONS,
    PARTS,
    RAW,
    deployment_settings,
    fields_of,
    film,
    films,
    json_lines,
    raw_space,
    save,
)
from workers.adaptors.space_files import load_space
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.representation import Representer
from workers.live.connection import connect, run_id
from workers.live.entity_store import EntityStore
from workers.live.history_records import HistoryChange
from workers.live.history_store import HistoryStore
from workers.live.item_vectors import ItemVectors
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors
from workers.live.space_registry import SpaceRegistry
from workers.live.space_vectors import SpaceVectors
from workers.live.view_marker import ViewMarker
from workers.live.view_partitions import ViewPartitions
from workers.towers.learn_tower import LearnTower

OLD, NEW, LEARNED = "pca-1", "pca-2", "learn-1"
DIMS = {OLD: 6, NEW: 4}
COUNT = 120
USERS = [user(n) for n in range(30)]
BOTH = {EntityKind.ITEM, EntityKind.USER}


@dataclass(slots=True)
class World:
    """A deployment whose lanes are called by hand."""

    settings: Settings
    redis_url: str
    redis: Redis
    keys: Keys
    registry: SpaceRegistry
    vectors: SpaceVectors
    store: EntityStore
    emitter: KafkaEmitter
    encoder: HashEncoder = field(default_factory=HashEncoder)

    async def fit(
        self, name: str, catalog, knowledge=None, *, users="histories", encoder=None
    ) -> None:
        directory = await fit(
            self.settings,
            name=name,
            catalog=catalog,
            knowledge=knowledge,
            dim=DIMS[name],
            users=users,
            load_encoder=encoder or (lambda _choice: self.encoder),
        )
        assert directory == self.settings.encode.spaces_dir / name

    async def encode_lane(self) -> EncodeLane:
        spaces = SpaceSet(self.registry, self.settings.encode.spaces_dir, lane="encode")
        await spaces.refresh()
        return EncodeLane(
            store=self.store,
            representer=Representer(HashEncoder(), PARTS),
            spaces=spaces,
            emitter=self.emitter,
            clock=FakeClock(),
            executor=InlineExecutor(),
        )

    async def space_lane(self, name: str) -> tuple[EncodeSpaceLane, SpaceSet]:
        spaces = SpaceSet(self.registry, self.settings.encode.spaces_dir, lane=f"encode.{name}")
        await spaces.refresh()
        behaviour = self.settings.behaviour
        items = BackfilledItems(
            ItemVectors(self.redis, self.keys),
            entities=self.store,
            spaces=spaces,
            executor=InlineExecutor(),
        )
        lane = EncodeSpaceLane(
            space=name,
            spaces=spaces,
            store=self.store,
            histories=self.histories,
            user_vectors=user_vectors(
                behaviour,
                self.redis,
                self.keys,
                towers=OwnTower(name, spaces, tower_options(self.settings)),
                items=items,
                executor=InlineExecutor(),
            ),
            emitter=FakeEmitter(),
            clock=FakeClock(),
            executor=InlineExecutor(),
        )
        return lane, spaces

    @property
    def histories(self) -> HistoryStore:
        return history_store(self.settings.behaviour, self.redis, self.keys)

    async def watch(self, users: Iterable[EntityKey], n: int) -> None:
        """Let each user see two films, as the behaviour lane handles it."""
        behaviour = self.settings.behaviour
        spaces = UserSpaces(self.registry, tower_options(self.settings))
        await spaces.refresh()
        changes = [
            HistoryChange(who, tuple(event(m, item=m % COUNT) for m in (n + place, n + place + 1)))
            for place, who in enumerate(users)
        ]
        applied = await self.histories.apply(
            changes, partition_of={change.user: 0 for change in changes}
        )
        vectors = user_vectors(
            behaviour, self.redis, self.keys, towers=spaces, executor=InlineExecutor()
        )
        await vectors.put(
            {change.user: one.history for change, one in zip(changes, applied, strict=True)}
        )

    async def write(self, documents: Iterable[tuple[EntityKey, Document]]) -> None:
        lane = await self.encode_lane()
        updates = [EntityUpdate(key, document, 1) for key, document in documents]
        assert all(isinstance(result, Settled) for result in await lane.handle(updates))

    async def verify_view(self) -> None:
        """Do what the encode lane's guard does."""
        run = await run_id(self.redis)
        for partition in range(PARTITIONS):
            await ViewPartitions(self.redis, self.keys).verify(partition, run)

    async def read(self, space: Space, keys: list[EntityKey]):
        return await ItemVectors(self.redis, self.keys).read(space, keys)

    async def count(self, space: str, kind: EntityKind = EntityKind.ITEM) -> int:
        return await self.vectors.count(space, kind)


@pytest.fixture
async def world(kafka, redis_server, topic_prefix, tmp_path) -> AsyncIterator[World]:
    settings = deployment_settings(
        kafka.bootstrap_servers, redis_server.url, topic_prefix, tmp_path / "spaces"
    )
    apply(settings.kafka)
    keys = Keys(topic_prefix)
    emitter = KafkaEmitter(settings.kafka)
    async with connect(redis_server.url) as redis:
        await ViewMarker(redis, keys).stamp()
        try:
            yield World(
                settings,
                redis_server.url,
                redis,
                keys,
                SpaceRegistry(redis, keys),
                SpaceVectors(redis, keys),
                EntityStore(redis, keys),
                emitter,
            )
        finally:
            await emitter.aclose()


@pytest.fixture
def catalog(tmp_path):
    rows = [
        {"item_id": key.id, **fields_of(document), "votes": n}
        for n, (key, document) in enumerate(films(COUNT).items())
    ]
    return json_lines(tmp_path / "catalog.jsonl", rows)


@pytest.fixture
def knowledge(tmp_path):
    rows = [{"item_id": str(n), "knowledge": {"mood": f"mood {n}"}} for n in range(1, COUNT, 2)]
    return json_lines(tmp_path / "knowledge.jsonl", rows)


def no_encoder(_choice: EncoderChoice) -> HashEncoder:
    raise AssertionError("the encoder was loaded")


class Ranker(threading.Thread):
    """Reads all items and users without a pause and remembers what every batch was like."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        # A ranker's aliases age a hundred times as fast, or the test would take half a minute.
        self._live = LiveVectors(
            world.redis_url, key_prefix=world.keys.prefix, clock=lambda: time.monotonic() * 100
        )
        self._keys = [f"item:{n}" for n in range(COUNT)]
        self._stop_asked = threading.Event()
        self.batches: list[tuple[str, int, int, int]] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                with self._live.pin() as view:
                    items, users = view.get(self._keys), view.get(list(map(str, USERS)))
                assert items.space == users.space, "a ranker must be able to compare them"
                dim = items.values.shape[1]
                found = int(items.found.sum()), int(users.found.sum())
                self.batches.append((items.space, dim, *found))
        except Exception as error:  # noqa: BLE001  # whatever it is, the test fails with it
            self.error = error
        finally:
            self._live.close()

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(10)
        assert not self.is_alive()
        assert self.error is None


async def test_a_new_space_takes_over_while_rankers_read_without_a_gap_or_a_mixed_batch(
    world, catalog, knowledge, wait_until
):
    await world.fit(OLD, catalog)
    first = await create(world.settings, OLD)
    assert (first.state, first.writer) == (SpaceState.ACTIVE, "encode")
    documents = films(COUNT)
    await world.write(documents.items())
    await world.watch(USERS, 1)
    await world.verify_view()
    ranker = Ranker(world)
    ranker.start()

    # Refitted from what the topics hold, without an encoder.
    await world.fit(NEW, "topic", "topic", encoder=no_encoder)
    second = await create(world.settings, NEW)
    assert (second.state, second.writer) == (SpaceState.BACKFILLING, f"encode.{NEW}")
    lane, spaces = await world.space_lane(NEW)
    with pytest.raises(SpaceRefused, match=f"covers 0 of {COUNT}"):
        await activate(world.settings, NEW)
    touched = [Touched(key) for key in documents]
    await lane.handle(touched[:-1])
    with pytest.raises(SpaceRefused, match=r"99\.1%"):
        await activate(world.settings, NEW)
    await lane.handle(touched[-1:])
    # Some do something meanwhile, the others come from `histories`.
    await world.watch(USERS[:10], 50)
    with pytest.raises(SpaceRefused, match="covers 10 of 30 users"):
        await activate(world.settings, NEW)
    assert (await read_control(world.settings.kafka)).aliases == dict.fromkeys(BOTH, OLD)
    await lane.handle([Touched(who, document=False, history=True) for who in USERS])
    flips = await activate(world.settings, NEW)
    assert {flip.kind for flip in flips} == BOTH
    assert {(flip.before, flip.coverage.share) for flip in flips} == {(OLD, 1.0)}
    # Both lanes go on writing around the flip.
    await world.write((item(n), film(2, f"Film {n}, corrected")) for n in range(0, COUNT, 4))
    await lane.handle(touched)
    await world.watch(USERS[10:20], 70)
    await wait_until(lambda: ranker.error or ranker.batches[-1][0] == NEW)
    seen_new_at = len(ranker.batches)
    await wait_until(lambda: ranker.error or len(ranker.batches) > seen_new_at + 20)

    deleted = await retire(world.settings, OLD, after_seconds=0)

    ranker.finish()
    assert deleted == COUNT + len(USERS)
    assert [await world.count(OLD, kind) for kind in sorted(BOTH)] == [0, 0]
    assert [await world.count(NEW, kind) for kind in sorted(BOTH)] == [COUNT, len(USERS)]
    assert set(ranker.batches) == {(name, DIMS[name], COUNT, len(USERS)) for name in (OLD, NEW)}
    assert ranker.batches == sorted(ranker.batches, key=lambda batch: batch[0])
    control = await read_control(world.settings.kafka)
    assert control.aliases == dict.fromkeys(BOTH, NEW)
    assert {name: record.state for name, record in control.spaces.items()} == {
        OLD: SpaceState.RETIRED,
        NEW: SpaceState.ACTIVE,
        RAW: SpaceState.ACTIVE,
    }
    assert await world.registry.spaces() == dict(control.spaces)
    assert {kind: await world.registry.alias(kind) for kind in BOTH} == dict.fromkeys(BOTH, NEW)
    # The lanes no longer write it.
    await world.write([(item(0), film(3, "Film 0, once more"))])
    await world.watch(USERS[:1], 80)
    assert [await world.count(OLD, kind) for kind in sorted(BOTH)] == [0, 0]
    assert spaces.raw.name == RAW


async def test_the_first_space_registers_the_raw_one_and_is_active_at_once(world, catalog):
    await world.fit(OLD, catalog)
    with pytest.raises(Transient, match="freshet spaces create"):
        await world.write([(item(1), film(1, "Heat"))])

    await create(world.settings, OLD)

    spaces = await world.registry.spaces()
    assert {name: (one.state, one.writer) for name, one in spaces.items()} == {
        OLD: (SpaceState.ACTIVE, "encode"),
        RAW: (SpaceState.ACTIVE, "encode"),
    }
    assert spaces[OLD].default is not None
    assert len(spaces[OLD].default) == DIMS[OLD]
    assert await world.registry.alias(EntityKind.ITEM) == OLD
    with pytest.raises(ConfigurationError, match="already registered"):
        await create(world.settings, OLD)


async def test_a_later_space_can_be_given_to_the_encode_lane_and_completed_by_a_rebuild(
    world, catalog
):
    await world.fit(OLD, catalog)
    await create(world.settings, OLD)
    await world.write(films(10).items())
    await world.fit(NEW, catalog)

    record = await create(world.settings, NEW, active=True)

    assert (record.state, record.writer) == (SpaceState.ACTIVE, "encode")
    assert await world.registry.alias(EntityKind.ITEM) == OLD
    await world.write([(item(100), film(1, "Heat"))])
    assert await world.count(NEW) == 1
    rebuild = ViewRebuild(
        world.settings.kafka,
        store=world.store,
        registry=world.registry,
        representer=Representer(HashEncoder(), PARTS),
        spaces=SpaceSet(world.registry, world.settings.encode.spaces_dir, lane="encode"),
        executor=InlineExecutor(),
    )
    await rebuild.rebuild(set(range(PARTITIONS)))
    assert await world.count(NEW) == 11


async def test_a_catalogue_is_taken_in_before_any_space_is_fitted_and_encoded_once(world, catalog):
    first = await init(world.settings, load_encoder=lambda _choice: world.encoder)
    assert (first.space.name, first.state, first.writer) == (RAW, SpaceState.ACTIVE, "encode")
    with pytest.raises(ConfigurationError, match="already registered"):
        await init(world.settings, load_encoder=no_encoder)
    await world.write(films(COUNT).items())
    await world.verify_view()
    assert await world.count(RAW) == COUNT

    await world.fit(NEW, "topic", "topic", encoder=no_encoder)
    await create(world.settings, NEW, active=True)
    # The encoder of the directory is not installed here: it would refuse if it were needed.
    report = await rebuild_command(world.settings)
    assert report.entities == COUNT
    (flip, *_) = await activate(world.settings, NEW)

    assert (flip.before, flip.coverage.covered) == (RAW, COUNT)
    assert await world.count(NEW) == COUNT
    assert await world.registry.alias(EntityKind.ITEM) == NEW


async def test_activation_waits_for_a_view_that_is_being_rebuilt(world, catalog):
    await world.fit(OLD, catalog)
    await create(world.settings, OLD)
    await world.write(films(4).items())
    await world.fit(NEW, catalog)
    await create(world.settings, NEW)

    with pytest.raises(SpaceRefused, match="not verified"):
        await activate(world.settings, NEW)

    assert await world.registry.alias(EntityKind.ITEM) == OLD


async def test_a_retired_space_is_written_no_more_and_the_one_in_use_stays(world, catalog):
    await world.fit(OLD, catalog)
    await world.fit(NEW, catalog)
    await create(world.settings, OLD)
    await create(world.settings, NEW)
    await world.write(films(6).items())
    lane, spaces = await world.space_lane(NEW)
    await lane.handle([Touched(item(n)) for n in range(6)])
    for name, reason in ((OLD, "active for items, users"), (RAW, "made from its parts")):
        with pytest.raises(SpaceRefused, match=reason):
            await retire(world.settings, name, after_seconds=0)

    steps: list[str] = []
    deleted = await retire(
        world.settings, NEW, after_seconds=0, progress=lambda what, _done, _of: steps.append(what)
    )

    assert deleted == 6
    assert {"waiting", "deleting items"} <= set(steps)
    await spaces.refresh()
    results = await lane.handle([Touched(item(1))])
    assert [result.outcome for result in results] == [Outcome.UNCHANGED]
    assert await world.count(NEW) == 0
    assert await world.count(OLD) == 6
    with pytest.raises(SpaceRefused, match="retired"):
        await activate(world.settings, NEW)
    # Given again, as after a command that was cut short.
    assert await retire(world.settings, NEW, after_seconds=0) == 0


async def test_spaces_are_listed_with_what_they_cover(world, catalog):
    await world.fit(OLD, catalog)
    await create(world.settings, OLD)
    await world.write([*films(5).items(), (item(7), removed(1))])
    await world.watch(USERS[:3], 0)
    await world.fit(NEW, catalog)

    listed = {status.name: status for status in await list_spaces(world.settings)}

    assert list(listed) == [RAW, OLD, NEW]
    assert listed[OLD].vectors == {EntityKind.ITEM: 5, EntityKind.USER: 3}
    assert set(listed[OLD].active_for) == BOTH
    assert listed[RAW].vectors == {EntityKind.ITEM: 5, EntityKind.USER: 0}
    assert listed[NEW].state is None
    assert listed[NEW].on_disk
    assert (listed[NEW].dim, listed[NEW].vectors) == (DIMS[NEW], {})


@pytest.mark.parametrize(
    ("users", "kinds", "source"),
    [
        ("histories", (EntityKind.ITEM, EntityKind.USER), "histories"),
        ("knowledge", (EntityKind.ITEM, EntityKind.USER), "knowledge"),
        ("none", (EntityKind.ITEM,), "histories"),
    ],
)
async def test_a_space_declares_where_its_users_come_from(world, catalog, users, kinds, source):
    await world.fit(OLD, catalog, users=users)
    record = await create(world.settings, OLD)

    assert (record.space.kinds, record.space.user_vectors) == (kinds, source)
    aliases = (await read_control(world.settings.kafka)).aliases
    assert set(aliases) == set(kinds)
    await world.write(films(3).items())
    await world.watch(USERS[:2], 0)
    assert await world.count(OLD, EntityKind.USER) == (2 if users == "histories" else 0)


async def test_a_rebuild_of_everything_puts_users_back_too(world, catalog):
    await world.fit(OLD, catalog)
    await create(world.settings, OLD)
    await world.write(films(6).items())
    await world.watch(USERS[:4], 0)
    histories = await world.histories.load(USERS[:4])
    await world.emitter.emit(
        [
            history_message(who, history, partition=n % PARTITIONS, written_at_ms=2**45)
            for n, (who, history) in enumerate(zip(USERS[:4], histories, strict=True))
        ]
    )
    names = [world.keys.vec(OLD, who) for who in USERS[:4]]
    before = [VectorRecord.decode(one) for one in await world.redis.mget(names)]
    await world.redis.delete(*names, *(world.keys.history(who) for who in USERS[:4]))

    report = await rebuild_command(world.settings)

    assert report == RebuildReport(entities=6, users=4)
    assert await world.histories.load(USERS[:4]) == histories
    for made, was in zip(await world.redis.mget(names), before, strict=True):
        assert VectorRecord.decode(made).header.rev == was.header.rev
        assert (VectorRecord.decode(made).vector == was.vector).all()


async def test_fitting_takes_knowledge_from_files_and_from_topics_alike(
    world, catalog, knowledge, tmp_path
):
    await world.fit(OLD, catalog, knowledge)
    await create(world.settings, OLD)
    documents = {
        key: document.merge(Document(individual=factors(1, f"mood {key.id}")))
        if int(key.id) % 2
        else document
        for key, document in films(COUNT).items()
    }
    await world.write(documents.items())
    fitted_on = load_space(world.settings.encode.spaces_dir, OLD).space.fitted_on
    assert fitted_on["items"] == COUNT
    assert fitted_on["items_with_mood"] == COUNT // 2

    sources = {
        "both": ("topic", "topic", no_encoder),
        "written": (catalog, "topic", no_encoder),
        "stored": ("topic", knowledge, no_encoder),
        "content": ("topic", None, no_encoder),
    }
    fitted = {}
    for name, (items, written, encoder) in sources.items():
        directory = await fit(
            world.settings,
            name=name,
            catalog=items,
            knowledge=written,
            dim=DIMS[OLD],
            load_encoder=encoder,
        )
        fitted[name] = load_space(directory.parent, name).space.fitted_on

    assert fitted["both"] == fitted["written"] == fitted["stored"] == fitted_on
    assert fitted["content"]["items_with_mood"] == 0


async def test_a_file_that_cannot_be_read_names_the_line(world, tmp_path):
    broken = json_lines(tmp_path / "broken.jsonl", [{"item_id": "1", "title": "Heat"}, {"x": 1}])

    with pytest.raises(ConfigurationError, match="line 2"):
        await world.fit(OLD, broken)
    with pytest.raises(ConfigurationError, match="No such file"):
        await world.fit(OLD, tmp_path / "missing.jsonl")
    with pytest.raises(ConfigurationError, match="holds no items"):
        await world.fit(OLD, "topic")
    assert not world.settings.encode.spaces_dir.exists()


async def test_a_refit_with_another_encoder_is_refused(world, catalog, tmp_path):
    await world.fit(OLD, catalog)
    other = HashEncoder()
    other.encoder_id = "another-encoder"
    # Known texts need no encoder, whichever is installed.
    unknown = json_lines(tmp_path / "more.jsonl", [{"item_id": "new", "title": "Unheard Of"}])

    with pytest.raises(ConfigurationError, match="installed is another-encoder"):
        await world.fit(NEW, unknown, encoder=lambda _choice: other)

    assert not (world.settings.encode.spaces_dir / NEW).exists()


async def test_a_learned_space_goes_live_as_any_other_and_users_move_with_every_event(
    world, catalog
):
    await world.fit(OLD, catalog)
    await create(world.settings, OLD)
    await world.write(films(COUNT).items())
    await world.watch(USERS, 1)
    await world.verify_view()
    adaptor = learn_adaptor(small_model(), LEARNED)
    save(world.settings.encode.spaces_dir, adaptor)

    record = await create(world.settings, LEARNED)
    assert record.default == tuple(map(float, adaptor.default))
    lane, _ = await world.space_lane(LEARNED)
    await lane.handle([Touched(who, document=False, history=True) for who in USERS])
    await lane.handle([Touched(key) for key in films(COUNT)])
    flips = await activate(world.settings, LEARNED)
    await world.watch(USERS[:1], 50)

    assert {flip.coverage.share for flip in flips} == {1.0}
    raw, found = await world.read(raw_space().space, [item(n) for n in range(COUNT)])
    items, _ = await world.read(adaptor.space, [item(n) for n in range(COUNT)])
    users, made = await world.read(adaptor.space, USERS)
    assert found.all()
    assert made.all()
    parts = raw.reshape(COUNT, len(PARTS), -1)
    np.testing.assert_allclose(items, adaptor.apply(parts, parts.any(axis=2)), atol=1e-3)
    seen = np.array([[place + 1, place + 2, -1, -1] for place in range(len(USERS))])
    seen[0] = [1, 2, 50, 51]
    ones, times = np.ones(seen.shape, np.float32), np.tile(np.arange(4), (len(seen), 1))
    tower = LearnTower(adaptor)
    expected, _ = tower.apply(tower.prepare(raw), seen, ones, times)
    np.testing.assert_allclose(users, expected, atol=1e-3)
