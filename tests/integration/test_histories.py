"""Histories on a real Kafka and Redis: flushed, lost with Redis, put back, and what came since."""

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import orjson
import pytest
from redis.asyncio import Redis

from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.history import History, HistoryRecord
from schemas.spaces import Space, SpaceRecord, SpaceState
from schemas.topics import DAY_MS, Topic
from schemas.vector_record import VectorHeader, VectorRecord
from streams.clock import SystemClock
from streams.compacted import read_compacted
from streams.emitter import KafkaEmitter, Outgoing
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import Record
from streams.group_offsets import commit_offsets, committed_offsets
from streams.history_flush import HistoryFlush
from streams.history_log import history_message, newest_histories
from streams.history_restore import LaneRestore
from streams.kafka_clients import KafkaConnection
from streams.kept_histories import KeptHistories
from streams.lanes.behaviour import BehaviourLane, NoGate
from streams.replay_input import InputReplay
from streams.settings import Settings
from streams.topic_admin import apply
from streams.topology import history_watermark_group
from streams.user_parts import history_restore, history_store, tower_options, user_vectors
from streams.user_spaces import UserSpaces
from streams.view_guard import GuardedLane, ViewGuard
from tests.fakes.engine import FakeDeadLetters
from tests.fakes.inline_executor import InlineExecutor
from tests.history_builders import event, user
from tests.space_builders import PARTITIONS, deployment_settings
from workers.live.awaited_items import AwaitedItems
from workers.live.connection import RedisFence, connect, run_id
from workers.live.dirty_histories import DirtyHistories
from workers.live.entity_store import EntityStore
from workers.live.guarded_view import GroupCheckpoints, GuardedView
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewLost, ViewMarker
from workers.live.view_partitions import ViewPartitions

GROUP = "behaviour-test"
SPACE = Space(
    name="mean",
    kinds=(EntityKind.ITEM, EntityKind.USER),
    encoder_id="encoder",
    adaptor_id="parts-pca",
    parts=("title",),
    part_dim=4,
    dim=4,
)
ITEMS = 6


class StillPipeline:
    """A pipeline with nothing in it: the lane is called by hand."""

    def __init__(self) -> None:
        self.holds: dict[str, str] = {}
        self.settled: dict[tuple[str, int], int] = {}

    def hold(self, name: str, detail: str, *, freeze: bool = False) -> None:
        self.holds[name] = detail

    def unhold(self, name: str) -> None:
        self.holds.pop(name, None)

    async def quiet(self) -> None:
        """It always is."""

    def settled_ends(self) -> dict[tuple[str, int], int]:
        return dict(self.settled)

    def trust(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Checkpoints are stored by hand."""


@dataclass(slots=True)
class World:
    """The behaviour lane of one worker, its guard and its flush; `feed` is consumer and engine."""

    settings: Settings
    server: RedisServer
    probe: Redis
    redis: Redis
    keys: Keys
    emitter: KafkaEmitter
    lane: BehaviourLane
    pipeline: StillPipeline
    guard: ViewGuard
    flush: HistoryFlush
    restore: LaneRestore
    checkpoints: GroupCheckpoints
    position: dict[int, int]
    replays: list[tuple[int, int | None, int]]
    assigned: set[tuple[str, int]]

    @property
    def topic(self) -> str:
        return self.settings.kafka.topic_prefix + Topic.USER_BEHAVIOUR

    async def send(self, who: EntityKey, n: int, *, partition: int, **more: object) -> None:
        """Put event `n` on the topic: the user saw item n % ITEMS."""
        body = {
            "type": "user.behaviour",
            "user_id": who.id,
            "event_id": f"e{n}",
            "item_id": str(n % ITEMS),
            "action": "like",
            "occurred_at": f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z",
        } | more
        await self.emitter.emit(
            [Outgoing(Topic.USER_BEHAVIOUR, who.encode(), orjson.dumps(body), partition=partition)]
        )

    async def work(self) -> None:
        """Handle what is new on the topic, store checkpoints, commit: what the engine does."""
        new: dict[int, list[Record]] = {}
        async for one in read_compacted(self.settings.kafka, Topic.USER_BEHAVIOUR):
            if one.offset >= self.position.get(one.partition, 0):
                record = Record(
                    one.topic, one.partition, one.offset, one.key, one.value, (), one.timestamp
                )
                new.setdefault(one.partition, []).append(record)
        for partition, records in new.items():
            for record in records:
                await self.lane.handle([self.lane.decode(record, SystemClock().now_ms())])
            self.position[partition] = records[-1].offset + 1
        ends = {(self.topic, partition): offset for partition, offset in self.position.items()}
        self.pipeline.settled |= ends
        await self.checkpoints.store(ends)
        await self.commit(GROUP, ends)

    async def commit(self, group: str, offsets: dict[tuple[str, int], int]) -> None:
        await commit_offsets(KafkaConnection.of(self.settings.kafka), group, offsets)

    async def watermarks(self) -> dict[int, int]:
        group = history_watermark_group(self.settings.kafka.topic_prefix)
        tps = {(self.topic, partition) for partition in range(PARTITIONS)}
        found = await committed_offsets(KafkaConnection.of(self.settings.kafka), group, tps)
        return {partition: offset for (_, partition), offset in found.items()}

    async def put_view(self) -> None:
        """Do what the encode lane does for an empty Redis: spaces, item vectors, the stamp."""
        registry = SpaceRegistry(self.probe, self.keys)
        await registry.put(
            SpaceRecord(space=SPACE, state=SpaceState.ACTIVE, writer="encode", changed_at_ms=1)
        )
        await EntityStore(self.probe, self.keys).put_vectors(
            SPACE.name, [(EntityKey.item(str(n)), 1, _item_vector(n)) for n in range(ITEMS)]
        )
        await self.verify_view()

    async def verify_view(self) -> None:
        await ViewMarker(self.probe, self.keys).stamp()
        process = await run_id(self.probe)
        for partition in range(PARTITIONS):
            await ViewPartitions(self.probe, self.keys).verify(partition, process)

    async def dump(self, users: Iterable[EntityKey]) -> dict[EntityKey, tuple[object, ...]]:
        """Return of each user the history as bytes, and of the vector all but the time."""
        held: dict[EntityKey, tuple[object, ...]] = {}
        for who in users:
            history = await self.probe.get(self.keys.history(who))
            (made,) = await self.probe.mget([self.keys.vec(SPACE.name, who)])
            vector = VectorRecord.decode(made) if isinstance(made, bytes) else None
            told = vector and (vector.header.rev, vector.header.event_time_ms, *vector.vector)
            held[who] = (history, told)
        return held

    async def published(self, partition: int) -> dict[EntityKey, HistoryRecord]:
        return {
            record.user: record async for record in newest_histories(self.settings.kafka, partition)
        }


async def opened(guard: ViewGuard, pipeline: StillPipeline) -> bool:
    """Look, as the guard does every second: a fresh broker may not know its groups at once."""
    with suppress(Transient):
        await guard.look()
    return not pipeline.holds


def _item_vector(n: int) -> bytes:
    values = np.eye(ITEMS, 4, dtype=np.float16)[n] + np.float16(n / 10)
    header = VectorHeader(1, "float16", 4, 1, 1, 1, -1, 1, 1)
    return VectorRecord(header, values).encode()


@pytest.fixture
async def world(kafka, own_redis, topic_prefix, tmp_path, wait_until) -> AsyncIterator[World]:
    server = own_redis()
    settings = deployment_settings(
        kafka.bootstrap_servers, server.url, topic_prefix, tmp_path / "spaces"
    )
    apply(settings.kafka)
    connection = KafkaConnection.of(settings.kafka)
    keys, fence, clock = Keys(topic_prefix), RedisFence(), SystemClock()
    emitter = KafkaEmitter(settings.kafka)
    behaviour = settings.behaviour
    topic = topic_prefix + Topic.USER_BEHAVIOUR
    assigned = {(topic, partition) for partition in range(PARTITIONS)}
    async with connect(server.url) as probe, connect(server.url, fence=fence) as redis:
        spaces = UserSpaces(SpaceRegistry(probe, keys), tower_options(settings))
        vectors = user_vectors(behaviour, redis, keys, towers=spaces, executor=InlineExecutor())
        restore = history_restore(
            settings, redis, keys, vectors=vectors, refresh_spaces=spaces.refresh
        )
        kept = KeptHistories(settings, redis, keys, emitter, clock, restore)
        lane = BehaviourLane(
            histories=kept.store,
            awaited=AwaitedItems(redis, keys),
            user_vectors=vectors,
            gate=NoGate(),
            emitter=emitter,
            dead_letters=FakeDeadLetters(),
            clock=clock,
            bounds=behaviour.bounds,
            limits=behaviour.limits,
            updates_topic=topic_prefix + Topic.LIVE_UPDATES,
            group=GROUP,
        )
        view = GuardedView(probe, redis, fence, keys, group=GROUP)
        pipeline = StillPipeline()
        replay = InputReplay(lane, settings.kafka, RetrySchedule(), clock, max_batch=100)
        replays: list[tuple[int, int | None, int]] = []

        async def replay_noted(tp: tuple[str, int], start: int | None, end: int) -> int:
            replays.append((tp[1], start, end))
            return await replay.replay(tp, start, end)

        guard = ViewGuard(
            GuardedLane(
                name="behaviour",
                view_partitions=PARTITIONS,
                assignment=lambda: set(assigned),
                committed=partial(committed_offsets, connection, GROUP),
                replay=replay_noted,
                restore=kept.restore,
            ),
            view,
            pipeline,
        )
        kept.attach(guard)
        world = World(
            settings,
            server,
            probe,
            redis,
            keys,
            emitter,
            lane,
            pipeline,
            guard,
            kept.flush(view, lambda: set(assigned), lambda: not pipeline.holds),
            kept.restore,
            GroupCheckpoints(redis, keys, group=GROUP, fence=fence),
            {},
            replays,
            assigned,
        )
        await world.put_view()
        await wait_until(lambda: opened(guard, pipeline))
        await spaces.refresh()
        try:
            yield world
        finally:
            await emitter.aclose()


ALL = set(range(PARTITIONS))
USERS = [user(n) for n in range(8)]


async def feed(world: World, numbers: Iterable[int]) -> None:
    """Send events to users in turn; each user's partition is not the one their key would choose."""
    for n in numbers:
        await world.send(USERS[n % len(USERS)], n, partition=n % len(USERS) % PARTITIONS)
    await world.work()


async def test_an_emptied_redis_gets_all_histories_and_vectors_back(world):
    await feed(world, range(30))
    await world.flush.flush(ALL)
    before = await world.dump(USERS)
    assert all(history is not None and told is not None for history, told in before.values())
    await world.probe.flushall()

    await world.guard.look()
    assert world.pipeline.holds, "the view must be put back first"
    await world.put_view()
    await world.guard.look()

    assert not world.pipeline.holds
    assert await world.dump(USERS) == before


async def test_what_came_after_the_watermark_is_read_again_and_nothing_before(world):
    await feed(world, range(16))
    await world.flush.flush(ALL)
    assert await world.watermarks() == {0: 8, 1: 8}
    await feed(world, range(16, 30))
    before = await world.dump(USERS)
    await world.probe.flushall()
    await world.put_view()

    await world.guard.look()

    after = await world.dump(USERS)
    events = {who: History.decode(after[who][0]).events for who in USERS}
    assert events == {who: History.decode(before[who][0]).events for who in USERS}
    assert world.replays == [(0, 8, 15), (1, 8, 15)]
    for who in USERS:
        np.testing.assert_allclose(after[who][1][2:], before[who][1][2:], atol=1e-3)


async def test_without_any_flush_all_input_is_read_again(world):
    await feed(world, range(20))
    before = await world.dump(USERS)
    await world.probe.flushall()
    await world.put_view()

    await world.guard.look()

    after = await world.dump(USERS)
    assert [History.decode(after[who][0]).events for who in USERS] == [
        History.decode(before[who][0]).events for who in USERS
    ]


async def test_a_crash_between_producing_and_unmarking_costs_a_record_and_no_change(world):
    await feed(world, range(8))
    histories = history_store(world.settings.behaviour, world.redis, world.keys)
    marks = DirtyHistories(world.redis, world.keys)
    # As far as a worker came that was killed there.
    await marks.begin(0)
    taken = await marks.batch(0, 100)
    first = await histories.load(taken[:1])
    await world.emitter.emit(
        [
            history_message(taken[0], history, partition=0, written_at_ms=1)
            for history in first
            if history is not None
        ]
    )
    await feed(world, range(8, 24))

    assert await world.flush.flush(ALL) >= len(USERS)

    for partition in ALL:
        published = await world.published(partition)
        assert set(published) == {who for who in USERS if int(who.id) % PARTITIONS == partition}
        stored = await histories.load(list(published))
        assert [record.history for record in published.values()] == stored
    assert await marks.count(0) == await marks.count(1) == 0
    assert await world.watermarks() == {0: 12, 1: 12}


async def test_a_later_revision_in_the_log_outranks_one_that_came_late(world):
    await feed(world, range(8))
    await world.flush.flush(ALL)
    old = (await world.published(0))[USERS[0]]
    await feed(world, range(8, 16))
    await world.flush.flush(ALL)
    before = await world.dump(USERS)
    # From an owner that was paused between reading and producing.
    await world.emitter.emit([history_message(USERS[0], old.history, partition=0, written_at_ms=1)])
    await world.probe.flushall()
    await world.put_view()

    await world.guard.look()

    assert await world.dump(USERS) == before


async def test_what_was_appended_to_an_emptied_redis_is_joined_and_never_published_alone(world):
    """Between the loss and the next look the lane goes on: it cannot know yet."""
    await feed(world, range(16))
    await world.flush.flush(ALL)
    await world.probe.flushall()
    await world.send(USERS[0], 16, partition=0)
    with pytest.raises(ViewLost):
        await feed(world, ())
    assert len(History.decode(await world.probe.get(world.keys.history(USERS[0]))).events) == 1

    with pytest.raises(Transient, match="compared"):
        await world.flush.flush(ALL)
    assert len((await world.published(0))[USERS[0]].history.events) == 2
    await world.put_view()
    await world.guard.look()
    await world.work()
    await world.flush.flush(ALL)

    published = (await world.published(0))[USERS[0]].history
    assert len(published.events) == 3
    assert published == History.decode(await world.probe.get(world.keys.history(USERS[0])))


async def test_a_redis_from_an_old_snapshot_ends_up_as_new_as_it_was(world):
    await feed(world, range(12))
    await world.flush.flush(ALL)
    snapshot = world.server.snapshot()
    await feed(world, range(12, 24))
    await world.flush.flush(ALL)
    before = await world.dump(USERS)

    world.server.restore(snapshot)
    await world.guard.look()
    assert world.pipeline.holds
    await world.verify_view()
    await world.guard.look()

    after = await world.dump(USERS)
    assert {who: held[0] for who, held in after.items()} == {
        who: held[0] for who, held in before.items()
    }
    assert after == before


async def test_an_erasure_survives_the_loss_of_redis(world):
    await feed(world, range(16))
    await world.flush.flush(ALL)
    await world.send(
        USERS[1], 100, partition=1, type="user.erased", occurred_at="2026-01-02T00:00Z"
    )
    await world.work()
    await world.probe.flushall()
    await world.put_view()

    await world.guard.look()
    # A producer that repeats itself brings nothing back.
    await feed(world, range(8))

    history = History.decode(await world.probe.get(world.keys.history(USERS[1])))
    assert history.events == ()
    assert history.erased_at_ms > 0
    assert await world.probe.get(world.keys.vec(SPACE.name, USERS[1])) is None


async def test_idle_users_and_swept_ones_are_not_put_back(world):
    now_ms = SystemClock().now_ms()
    history = History(5, -1, (event(1, now_ms),))
    idle, swept = user("idle"), user("swept")
    await world.emitter.emit(
        [
            history_message(idle, history, partition=0, written_at_ms=now_ms - 91 * DAY_MS),
            history_message(swept, history, partition=0, written_at_ms=now_ms),
            Outgoing(Topic.HISTORIES, swept.encode(), None, partition=0),
        ]
    )

    await world.restore({(world.topic, 0)})

    assert await world.dump([idle, swept]) == {idle: (None, None), swept: (None, None)}


async def test_a_history_that_redis_knows_more_of_is_marked(world):
    await feed(world, range(8))
    await world.flush.flush(ALL)
    published = (await world.published(0))[USERS[0]].history
    more = History(published.rev + 1, -1, (event(99),))
    await world.emitter.emit([history_message(USERS[0], more, partition=0, written_at_ms=2**45)])

    await world.restore({(world.topic, 0)})

    marks = DirtyHistories(world.redis, world.keys)
    assert await marks.count(0) == 1
    await world.flush.flush(ALL)
    events = (await world.published(0))[USERS[0]].history.events
    assert set(events) == {*published.events, *more.events}


async def test_a_record_that_does_not_decode_stops_the_restore(world):
    await world.emitter.emit([Outgoing(Topic.HISTORIES, b"user:1", b"{}", partition=0)])

    with pytest.raises(Transient, match="histories"):
        await world.restore({(world.topic, 0)})


async def test_offsets_are_committed_for_a_group_that_nobody_joins(world):
    for offset in (7, 3):
        await world.commit("nobody", {(world.topic, 0): offset})

        found = await committed_offsets(
            KafkaConnection.of(world.settings.kafka), "nobody", {(world.topic, 0)}
        )
        assert found == {(world.topic, 0): offset}


async def test_nothing_is_added_in_a_partition_before_it_was_compared(world):
    await world.probe.flushall()
    await world.put_view()
    world.assigned.discard((world.topic, 1))
    await world.guard.look()
    world.assigned.add((world.topic, 1))

    await world.send(USERS[0], 0, partition=0)
    await world.work()
    await world.send(USERS[1], 1, partition=1)
    with pytest.raises(Transient, match=r"partitions \[1\] are not compared"):
        await world.work()

    await world.guard.look()
    await world.work()
    stored = [held[0] is not None for held in (await world.dump(USERS[:2])).values()]
    assert stored == [True, True]


async def test_a_checkpoint_goes_only_into_the_view_it_was_settled_in(world):
    await world.checkpoints.store({(world.topic, 0): 1})
    await ViewMarker(world.probe, world.keys).stamp()

    with pytest.raises(ViewLost):
        await world.checkpoints.store({(world.topic, 0): 2})

    await world.guard.look()
    await world.checkpoints.store({(world.topic, 0): 2})
    assert await GuardedView(
        world.probe, world.redis, RedisFence(), world.keys, group=GROUP
    ).checkpoints() == {(world.topic, 0): 2, (world.topic, 1): 0}
