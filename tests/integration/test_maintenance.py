"""refresh, sweep, forget and audit against a real Kafka and Redis, and a real encode lane."""

import time

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from schemas.entities import EntityKey, Stage
from schemas.errors import Transient
from schemas.history import History
from schemas.knowledge import Document, EntityRecord, RequestKind
from schemas.topics import DAY_MS, Topic
from streams.emitter import Outgoing
from streams.history_log import history_message, newest_histories, no_history_message
from streams.kafka_clients import retried
from streams.maintenance.audit import Fault, audit
from streams.maintenance.audit_histories import HistoryAudit
from streams.maintenance.forget import forget
from streams.maintenance.refresh import refresh
from streams.maintenance.sweep import sweep
from streams.maintenance.sweep_histories import SweptHistories
from streams.user_parts import history_store
from tests.history_builders import event, history_of, user
from tests.maintained import (
    HEAT,
    InterruptedEmitter,
    Maintained,
    content,
    individual,
    maintained,
    registers,
    removed,
)
from workers.live.dirty_histories import DirtyHistories
from workers.live.entity_store import EntityWrite
from workers.live.history_records import HistoryChange
from workers.live.history_store import HistoryStore
from workers.live.seen import SeenStore
from workers.live.seen_record import Seen
from workers.live.view_marker import ViewLost, ViewMarker

POISON = 2**62
OTHER = EntityKey.item("43")
ANN = user("ann")


@pytest.fixture
async def world(kafka, redis_server, topic_prefix):
    async with maintained(kafka.bootstrap_servers, redis_server.url, topic_prefix) as world:
        yield world


async def _no_pause(_seconds: float) -> None:
    """Look again at once."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ---- refresh ---------------------------------------------------------------------------------


async def test_refresh_asks_for_what_another_prompt_or_model_wrote(world: Maintained) -> None:
    await world.learn(HEAT, content(7), individual(7, prompt="old"))
    await world.learn(OTHER, content(3), individual(3, prompt="new"))

    report = await refresh(world.settings, ["prompt!=new"])

    (request,) = await world.requests()
    assert (report.looked_at, report.selected, report.tokens) == (2, 1, 120)
    assert (request.entity, request.kind, request.version) == (HEAT, RequestKind.REFRESH, 7)
    assert request.fields == {"title": "Heat"}
    assert request.event_time_ms == 1_007
    assert abs(request.requested_at_ms - _now_ms()) < 60_000


async def test_refresh_takes_items_without_knowledge_and_leaves_removed_ones(
    world: Maintained,
) -> None:
    await world.learn(HEAT, content(7))
    await world.learn(OTHER, content(3), removed(4))

    await refresh(world.settings, ["model!=model-a"])

    assert [request.entity for request in await world.requests()] == [HEAT]


async def test_refresh_by_age_counts_from_when_the_answer_was_given(world: Maintained) -> None:
    now_ms = _now_ms()
    await world.learn(HEAT, content(7), individual(7, generated_at_ms=now_ms - 31 * DAY_MS))
    await world.learn(OTHER, content(7), individual(7, generated_at_ms=now_ms - 29 * DAY_MS))

    report = await refresh(world.settings, ["age>30d"], now_ms=now_ms)

    assert report.selected == 1
    assert [request.entity for request in await world.requests()] == [HEAT]


async def test_a_dry_refresh_counts_and_asks_for_nothing(world: Maintained) -> None:
    await world.learn(HEAT, content(7), individual(7))
    await world.learn(OTHER, content(7))

    report = await refresh(world.settings, ["prompt!=current"], dry_run=True)
    limited = await refresh(world.settings, ["prompt!=current"], dry_run=True, limit=1)

    assert (report.selected, report.tokens) == (2, 240)
    assert limited.selected == 1
    assert await world.requests() == []


# ---- sweep -----------------------------------------------------------------------------------


async def test_sweep_deletes_old_removed_markers_everywhere(world: Maintained) -> None:
    await world.learn(HEAT, content(7), removed(8))
    await world.learn(OTHER, content(7))
    seen = SeenStore(world.redis.client, world.redis.keys)
    await seen.store([(HEAT, Seen(8, "", removed=True, at_ms=1))])

    young = await sweep(world.settings)
    dry = await sweep(world.settings, now_ms=_now_ms() + 32 * DAY_MS, dry_run=True)
    still_there = await world.store.load_stored(HEAT)
    old = await sweep(world.settings, now_ms=_now_ms() + 32 * DAY_MS)

    assert (young.swept, young.kept) == (0, 1)
    assert (dry.swept, dry.dry_run) == (1, True)
    assert still_there is not None
    assert (old.swept, old.kept, old.changed) == (1, 0, 0)
    assert await world.store.load_stored(HEAT) is None
    assert await seen.load([HEAT]) == [None]
    assert set(await world.entities()) == {OTHER}
    assert await world.last(Topic.ENTITIES, HEAT) is None
    assert await world.last(Topic.REPRESENTATIONS, HEAT) is None


async def test_sweep_leaves_an_item_that_came_back_though_its_record_is_on_the_way(
    world: Maintained,
) -> None:
    await world.learn(HEAT, content(7), removed(8))
    (stored,) = await world.store.load([HEAT], None)
    back = EntityWrite(HEAT, stored.rev, content(9), {})
    assert await world.store.put([back]) == [True]

    report = await sweep(world.settings, now_ms=_now_ms() + 32 * DAY_MS)

    details = await world.store.load_stored(HEAT)
    assert (report.swept, report.changed) == (0, 1)
    assert details is not None
    assert details.document == content(9)


async def test_an_item_that_comes_back_while_it_is_swept_is_not_lost(world: Maintained) -> None:
    await world.learn(HEAT, content(7), removed(8))

    async def comes_back() -> None:
        await world.learn(HEAT, content(9))

    report = await sweep(
        world.settings,
        now_ms=_now_ms() + 32 * DAY_MS,
        emitter=InterruptedEmitter(world.emitter, comes_back),
    )
    before_repair = await world.entities()
    await world.drain()

    assert report.swept == 1
    assert HEAT not in before_repair
    assert (await world.entities())[HEAT].document.content == content(9).content
    assert await world.last(Topic.REPRESENTATIONS, HEAT) is not None


# ---- histories of users ----------------------------------------------------------------------


async def _publish(world: Maintained, *rows: tuple[EntityKey, History, int], partition=0) -> None:
    await world.emitter.emit(
        [
            history_message(who, history, partition=partition, written_at_ms=at_ms)
            for who, history, at_ms in rows
        ]
    )


async def _published(world: Maintained, partition: int = 0) -> set[EntityKey]:
    return {record.user async for record in newest_histories(world.settings.kafka, partition)}


def _histories(world: Maintained) -> HistoryStore:
    return history_store(world.settings.behaviour, world.redis.client, world.redis.keys)


async def test_sweep_ends_idle_histories_and_marks_that_erase_nothing_more(
    world: Maintained,
) -> None:
    now_ms = _now_ms()
    idle, active, erased, lately = (user(n) for n in ("idle", "active", "erased", "lately"))
    await _publish(
        world,
        (idle, history_of(event(1)), now_ms - 91 * DAY_MS),
        (active, history_of(event(2)), now_ms - 89 * DAY_MS),
        (erased, History(1, 1_000), now_ms - 32 * DAY_MS),
        (lately, History(1, 1_000), now_ms - 30 * DAY_MS),
        partition=1,
    )

    dry = await sweep(world.settings, dry_run=True)
    assert (dry.histories.idle, dry.histories.marks) == (1, 1)
    assert len(await _published(world, 1)) == 4
    report = await sweep(world.settings)

    assert report.histories == SweptHistories(idle=1, marks=1, changed=0)
    assert await _published(world, 1) == {active, lately}
    assert (await sweep(world.settings)).histories == SweptHistories()


async def test_sweep_leaves_a_user_who_is_back(world: Maintained) -> None:
    await _publish(world, (ANN, history_of(event(1)), _now_ms() - 91 * DAY_MS))
    await _histories(world).apply([HistoryChange(ANN, (event(2),))], partition_of={ANN: 0})

    report = await sweep(world.settings)

    assert report.histories == SweptHistories(changed=1)
    assert await _published(world) == {ANN}


async def test_a_user_who_comes_back_during_the_sweep_is_published_after_it(
    world: Maintained,
) -> None:
    await _publish(world, (ANN, history_of(event(1)), _now_ms() - 91 * DAY_MS))
    marks = DirtyHistories(world.redis.client, world.redis.keys)

    async def come_back_and_be_published() -> None:
        await _change(world, ANN, 2)
        await _flush(world)

    await sweep(
        world.settings, emitter=InterruptedEmitter(world.emitter, come_back_and_be_published)
    )

    assert await _published(world) == set(), "the null came last"
    assert await marks.begin(0)
    assert await marks.batch(0, 10) == [ANN]


async def _change(world: Maintained, who: EntityKey, n: int) -> History:
    (applied,) = await _histories(world).apply(
        [HistoryChange(who, (event(n),))], partition_of={who: 0}
    )
    return applied.history


async def _flush(world: Maintained) -> None:
    """Publish what is marked, as the behaviour lane does."""
    marks = DirtyHistories(world.redis.client, world.redis.keys)
    await marks.begin(0)
    users = await marks.batch(0, 100)
    loaded = await _histories(world).load(users)
    histories = {who: one for who, one in zip(users, loaded, strict=True) if one is not None}
    await _publish(world, *((who, one, _now_ms()) for who, one in histories.items()))
    await marks.done(0, [(who, one.rev) for who, one in histories.items()])


async def test_audit_finds_nothing_where_changes_are_only_on_their_way(world: Maintained) -> None:
    for n in range(5):
        await _change(world, user(n), n)
    await _flush(world)
    await _change(world, user(3), 30)

    report = await audit(world.settings, pause=_no_pause)

    assert report.histories == HistoryAudit(compared=5)
    assert report.is_clean


async def test_audit_joins_what_redis_lost_and_marks_what_the_topic_lacks(
    world: Maintained,
) -> None:
    lost, older, ahead = (user(n) for n in ("lost", "older", "ahead"))
    for who in (lost, older, ahead):
        await _change(world, who, 1)
    await _flush(world)
    old = {record.user: record async for record in newest_histories(world.settings.kafka, 0)}
    later = {who: await _change(world, who, 2) for who in (older, ahead)}
    await _flush(world)
    # What compaction leaves when an owner that was paused came last: an old record alone.
    await world.emitter.emit([no_history_message(ahead, partition=0)])
    await _publish(world, (ahead, old[ahead].history, _now_ms()))
    # And a Redis that came back without its last writes.
    await world.redis.client.delete(world.redis.keys.history(lost), world.redis.keys.history(older))
    await _histories(world).restore([(older, old[older].history)])

    found = await audit(world.settings, pause=_no_pause)
    repaired = await audit(world.settings, repair=True, pause=_no_pause)

    assert found.histories == repaired.histories == HistoryAudit(compared=3, behind=2, ahead=1)
    assert (found.is_clean, found.repaired, repaired.repaired) == (False, False, True)
    stored = await _histories(world).load([lost, older, ahead])
    assert stored == [old[lost].history, later[older], later[ahead]]
    await _flush(world)
    published = {record.user: record async for record in newest_histories(world.settings.kafka, 0)}
    assert published[ahead].history == later[ahead]
    assert (await audit(world.settings, pause=_no_pause)).is_clean


async def test_audit_looks_twice_before_it_calls_a_history_unpublished(world: Maintained) -> None:
    await _change(world, ANN, 1)
    await _flush(world)
    history = await _change(world, ANN, 2)
    marks = DirtyHistories(world.redis.client, world.redis.keys)
    await marks.done(0, [(ANN, history.rev)])
    await marks.begin(0)
    await marks.done(0, [(ANN, history.rev)])

    async def published_meanwhile(_seconds: float) -> None:
        await _publish(world, (ANN, history, _now_ms()))

    report = await audit(world.settings, pause=published_meanwhile)

    assert report.histories == HistoryAudit(compared=1)


# ---- forget ----------------------------------------------------------------------------------


async def test_a_poisoned_item_takes_small_versions_again(world: Maintained) -> None:
    await world.learn(HEAT, content(POISON, "Poison"), individual(POISON))
    seen = SeenStore(world.redis.client, world.redis.keys)
    await seen.store([(HEAT, Seen(POISON, "00", removed=False, at_ms=1))])
    await world.learn(HEAT, content(8))
    (poisoned,) = await world.store.load([HEAT], None)

    report = await forget(world.settings, HEAT)
    between = await world.store.load_stored(HEAT)
    await world.learn(HEAT, content(8))

    (stored,) = await world.store.load([HEAT], None)
    assert poisoned.document.content == content(POISON, "Poison").content
    assert (report.was_known, report.came_back) == (True, False)
    assert between is not None
    assert (between.document, dict(between.vectors)) == (Document(), {})
    assert await seen.load([HEAT]) == [None]
    assert stored.document == content(8)
    assert stored.rev > report.rev > poisoned.rev
    assert (await world.entities())[HEAT].document == content(8)


async def test_forgetting_keeps_the_poison_out_of_a_rebuild(world: Maintained) -> None:
    await world.learn(HEAT, content(POISON))

    await forget(world.settings, HEAT)

    record = (await world.entities())[HEAT]
    assert record.document == Document()
    assert await world.last(Topic.REPRESENTATIONS, HEAT) is None
    swept = await sweep(world.settings, now_ms=_now_ms() + 32 * DAY_MS)
    assert swept.swept == 1
    assert await world.entities() == {}


async def test_forget_waits_for_every_lane_and_names_the_one_that_does_not_settle(
    world: Maintained,
) -> None:
    await world.learn(HEAT, content(POISON))
    await world.emitter.emit([Outgoing(Topic.CATALOG_ITEMS, HEAT.encode(), b"on its way")])
    waited: list[tuple[str, int]] = []

    with pytest.raises(Transient, match="lane items: 1 records not settled"):
        await forget(
            world.settings,
            HEAT,
            wait_seconds=0.2,
            on_wait=lambda lane, records: waited.append((lane, records)),
        )

    (untouched,) = await world.store.load([HEAT], None)
    assert waited
    assert untouched.document.content is not None

    _settle_everything(world, "items", Topic.CATALOG_ITEMS)
    report = await forget(world.settings, HEAT, wait_seconds=20)
    assert report.was_known


async def test_forget_tells_when_an_event_came_meanwhile_and_that_event_is_not_lost(
    world: Maintained,
) -> None:
    await world.learn(HEAT, content(POISON))

    async def comes_back() -> None:
        await world.learn(HEAT, content(9))

    report = await forget(
        world.settings, HEAT, emitter=InterruptedEmitter(world.emitter, comes_back)
    )
    await world.drain()

    assert report.came_back
    assert (await world.entities())[HEAT].document == content(9)
    assert await world.last(Topic.REPRESENTATIONS, HEAT) is not None


async def test_forgetting_cancels_what_the_backlog_holds_for_later(world: Maintained) -> None:
    await world.learn(HEAT, content(POISON), individual(POISON - 1))

    await forget(world.settings, HEAT)

    (request,) = await world.requests()
    assert (request.entity, request.kind, request.version) == (HEAT, RequestKind.REMOVE, POISON)


async def test_forgetting_what_was_never_known_says_so(world: Maintained) -> None:
    report = await forget(world.settings, HEAT)

    assert (report.was_known, report.came_back) == (False, False)


def _settle_everything(world: Maintained, lane: str, topic: Topic) -> None:
    kafka = world.settings.kafka
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    offsets = {
        TopicPartition(kafka.topic_prefix + topic, partition): OffsetAndMetadata(1, "", -1)
        for partition in range(kafka.partitions)
    }
    group = f"{kafka.topic_prefix}freshet.{lane}"
    try:
        retried(lambda: admin.alter_group_offsets(group, offsets))
    finally:
        admin.close()


# ---- audit -----------------------------------------------------------------------------------


async def test_an_audit_of_a_sound_view_finds_nothing(world: Maintained) -> None:
    await world.learn(HEAT, content(7), individual(7))
    await world.learn(OTHER, content(7), removed(8))

    report = await audit(world.settings, repair=True)

    assert (report.compared, report.differences, report.repaired) == (2, (), False)


async def test_a_document_that_redis_lost_is_put_back_with_its_vectors(world: Maintained) -> None:
    await world.learn(HEAT, content(7), individual(7))
    before = await world.store.load_stored(HEAT)
    await world.store.delete([HEAT], ["raw", "sum"])

    report = await audit(world.settings, repair=True)
    await world.drain()

    (difference,) = report.differences
    after = await world.store.load_stored(HEAT)
    assert (difference.fault, difference.redis_rev) == (Fault.BEHIND, 0)
    assert before is not None
    assert after is not None
    assert after.document == before.document
    assert after.rev >= difference.entities_rev
    assert {header.rev for header in after.vectors.values()} == {after.rev}
    assert {header.stage for header in after.vectors.values()} == {Stage.INDIVIDUAL}
    assert (await audit(world.settings)).differences == ()


async def test_an_item_alive_only_in_redis_dies_again(world: Maintained) -> None:
    await world.learn(HEAT, content(7))
    alive = await world.store.load_stored(HEAT)
    assert alive is not None
    record = EntityRecord(HEAT, alive.rev + 1, content(7).merge(removed(8)), 1)
    await world.emitter.emit([Outgoing(Topic.ENTITIES, HEAT.encode(), record.encode())])

    report = await audit(world.settings, repair=True)
    await world.drain()

    after = await world.store.load_stored(HEAT)
    assert [difference.fault for difference in report.differences] == [Fault.BEHIND]
    assert after is not None
    assert after.document.is_removed
    assert dict(after.vectors) == {}


async def test_what_was_never_produced_is_produced_by_the_lane(world: Maintained) -> None:
    await world.learn(HEAT, content(7))
    (stored,) = await world.store.load([HEAT], None)
    await world.store.put([EntityWrite(HEAT, stored.rev, content(9), {})])
    stray = EntityWrite(OTHER, 0, content(3), {})
    await world.store.put([stray])

    report = await audit(world.settings, repair=True, pause=_no_pause)
    await world.drain()

    assert {(difference.key, difference.fault) for difference in report.differences} == {
        (HEAT, Fault.AHEAD),
        (OTHER, Fault.AHEAD),
    }
    entities = await world.entities()
    assert entities[HEAT].document == content(9)
    assert entities[OTHER].document == content(3)
    assert (await audit(world.settings)).differences == ()


async def test_a_record_that_is_on_its_way_is_no_difference(world: Maintained) -> None:
    await world.learn(HEAT, content(7))
    (stored,) = await world.store.load([HEAT], None)
    await world.store.put([EntityWrite(HEAT, stored.rev, content(9), {})])
    record = EntityRecord(HEAT, stored.rev + 1, content(9), 1)

    async def meanwhile(_seconds: float) -> None:
        await world.emitter.emit([Outgoing(Topic.ENTITIES, HEAT.encode(), record.encode())])

    assert (await audit(world.settings, pause=meanwhile)).differences == ()


async def test_documents_that_differ_in_one_revision_are_merged(world: Maintained) -> None:
    await world.learn(HEAT, content(7))
    (stored,) = await world.store.load([HEAT], None)
    other = individual(7)
    record = EntityRecord(HEAT, stored.rev, content(7).merge(other), 1)
    await world.emitter.emit([Outgoing(Topic.ENTITIES, HEAT.encode(), record.encode())])

    report = await audit(world.settings, repair=True)
    await world.drain()

    (stored,) = await world.store.load([HEAT], None)
    assert [difference.fault for difference in report.differences] == [Fault.APART]
    assert registers(stored.document) == {"content", "individual"}
    assert (await audit(world.settings)).differences == ()


async def test_repair_does_not_bring_back_what_was_forgotten(world: Maintained) -> None:
    await world.learn(HEAT, content(POISON))
    (stored,) = await world.store.load([HEAT], None)
    await world.store.put([EntityWrite(HEAT, stored.rev, Document(), {}, ("raw", "sum"))])

    report = await audit(world.settings, repair=True, pause=_no_pause)
    await world.drain()

    (stored,) = await world.store.load([HEAT], None)
    assert [difference.fault for difference in report.differences] == [Fault.AHEAD]
    assert stored.document == Document()


async def test_an_audit_of_a_share_looks_at_about_that_share(world: Maintained) -> None:
    for index in range(60):
        await world.learn(EntityKey.item(str(index)), content(1))

    half = await audit(world.settings, share=0.5)
    none = await audit(world.settings, share=0.0)

    assert 15 <= half.compared <= 45
    assert none.compared == 0


async def test_a_view_that_is_not_whole_wants_a_rebuild_and_no_audit(world: Maintained) -> None:
    await world.learn(HEAT, content(7))
    await ViewMarker(world.redis.client, world.redis.keys).clear()

    with pytest.raises(ViewLost):
        await audit(world.settings)
