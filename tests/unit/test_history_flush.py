"""The history flush among fakes: nothing that changed is left out, and no watermark runs ahead."""

import asyncio
from collections.abc import Mapping

import pytest

from schemas.entities import EntityKey
from schemas.errors import Transient
from schemas.history import HistoryRecord
from schemas.topics import Topic
from streams.history_flush import BATCH, HistoryFlush
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.histories import InMemoryHistories
from tests.fakes.marks import InMemoryMarks
from tests.fakes.virtual_time import in_virtual_time
from tests.history_builders import BOUNDS, event, user
from tests.stack import wait_until
from workers.live.history_records import HistoryChange

TOPIC = "p.user.behaviour"
TP0, TP1 = (TOPIC, 0), (TOPIC, 1)
ANN, BEN = user("ann"), user("ben")


class World:
    """One worker of the behaviour lane, as far as the flush sees it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.histories = InMemoryHistories(self.clock, BOUNDS)
        self.marks = InMemoryMarks(self.histories)
        self.emitter = FakeEmitter()
        self.settled: dict[tuple[str, int], int] = {}
        self.current = True
        self.open = True
        self.owned = {TP0, TP1, ("p.live.updates", 0)}
        self.commits: list[dict[tuple[str, int], int]] = []
        self.flush = self.another_worker()

    def another_worker(self, emitter: FakeEmitter | None = None) -> HistoryFlush:
        return HistoryFlush(
            TOPIC,
            marks=self.marks,
            histories=self.histories,
            view=self,
            owned=lambda: set(self.owned),
            is_open=lambda: self.open,
            emitter=emitter or self.emitter,
            commit=self.commit,
            clock=self.clock,
            every_seconds=60.0,
        )

    async def checkpoints(self) -> dict[tuple[str, int], int]:
        await asyncio.sleep(0)
        return dict(self.settled)

    async def is_current(self) -> bool:
        await asyncio.sleep(0)
        return self.current

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        await asyncio.sleep(0)
        self.commits.append(dict(offsets))

    def change_now(self, who: EntityKey, n: int, partition: int = 0) -> int:
        """Append event `n`, as a handler does; return the revision."""
        self.histories.dirty[partition].add(who)
        return self.histories.apply_now(HistoryChange(who, (event(n),))).history.rev

    @property
    def published(self) -> list[tuple[EntityKey, int, int | None]]:
        """User, revision and partition of each record, in order."""
        records = [
            (HistoryRecord.decode(sent.value or b""), sent.partition)
            for sent in self.emitter.on(Topic.HISTORIES)
        ]
        return [(record.user, record.history.rev, partition) for record, partition in records]


@pytest.fixture
def world() -> World:
    return World()


async def test_what_changed_is_produced_once_to_the_partition_of_its_events(world):
    rev = world.change_now(ANN, 1)
    other = world.change_now(BEN, 2, partition=1)

    assert await world.flush.flush({0, 1}) == 2

    assert world.published == [(ANN, rev, 0), (BEN, other, 1)]
    record = HistoryRecord.decode(world.emitter.sent[0].value or b"")
    assert record.history == world.histories.of(ANN)
    assert record.written_at_ms == START_MS
    assert await world.flush.flush({0, 1}) == 0


async def test_more_users_than_a_batch_holds_are_all_produced(world):
    for n in range(BATCH + 1):
        world.change_now(user(n), n)

    assert await world.flush.flush({0}) == BATCH + 1

    assert [len(call) for call in world.emitter.calls] == [BATCH, 1]
    assert world.marks.marked(0) == set()


async def test_the_watermark_is_what_was_settled_before_the_marks_were_taken_over(world):
    world.settled = {TP0: 7, TP1: 3, ("p.live.updates", 0): 99}
    world.change_now(ANN, 1)
    world.marks.after_begin = lambda: world.settled.update({TP0: 8})

    await world.flush.flush({0, 1})

    assert world.commits == [{TP0: 7, TP1: 3}]


async def test_a_watermark_is_committed_only_when_it_moves(world):
    world.settled = {TP0: 7}
    await world.flush.flush({0})
    await world.flush.flush({0})
    world.settled = {TP0: 9}
    await world.flush.flush({0})

    assert world.commits == [{TP0: 7}, {TP0: 9}]


async def test_nothing_is_unmarked_or_committed_before_the_broker_has_acknowledged(world):
    world.settled = {TP0: 7}
    world.change_now(ANN, 1)
    world.emitter.fail()

    with pytest.raises(Transient, match="scripted"):
        await world.flush.flush({0})

    assert world.marks.marked(0) == {ANN}
    assert world.commits == []
    assert await world.flush.flush({0}) == 1
    assert world.commits == [{TP0: 7}]


async def test_after_a_crash_between_producing_and_unmarking_it_is_produced_again(world):
    world.settled = {TP0: 7}
    rev = world.change_now(ANN, 1)
    world.marks.failures.append(Transient("redis", "killed"))
    with pytest.raises(Transient):
        await world.flush.flush({0})
    # Marked while the old set is not finished: it must not wait for ever, nor be left out.
    later = world.change_now(BEN, 2)

    await world.another_worker().flush({0})

    assert world.published == [(ANN, rev, 0), (ANN, rev, 0), (BEN, later, 0)]
    assert world.marks.marked(0) == set()
    assert world.commits == [{TP0: 7}]


async def test_a_change_while_its_history_is_produced_keeps_its_mark(world):
    rev = world.change_now(ANN, 1)
    world.clock.advance(1)
    newer: list[int] = []

    def change_once() -> None:
        world.histories.after_load = None
        newer.append(world.change_now(ANN, 2))

    world.histories.after_load = change_once
    await world.flush.flush({0})
    assert world.marks.marked(0) == {ANN}

    await world.flush.flush({0})

    assert world.published == [(ANN, rev, 0), (ANN, newer[0], 0)]


async def test_an_owner_that_ends_late_does_not_take_its_successors_marks(world):
    """Paused between producing and unmarking, while its successor takes over a later change."""
    world.change_now(ANN, 1)
    paused, resume = asyncio.Event(), asyncio.Event()

    class PausedEmitter(FakeEmitter):
        async def emit(self, messages) -> None:
            await super().emit(messages)
            paused.set()
            await resume.wait()

    old = asyncio.create_task(world.another_worker(PausedEmitter()).flush({0}))
    await paused.wait()
    await world.flush.flush({0})
    world.clock.advance(1)
    newer = world.change_now(ANN, 2)
    await world.marks.begin(0)

    resume.set()
    await old

    assert world.marks.marked(0) == {ANN}
    await world.flush.flush({0})
    assert world.published[-1] == (ANN, newer, 0)


async def test_a_history_that_is_gone_is_not_produced_and_its_mark_goes(world):
    world.change_now(ANN, 1)
    del world.histories.stored[ANN]

    assert await world.flush.flush({0}) == 0

    assert world.emitter.sent == []
    assert world.marks.marked(0) == set()


async def test_from_a_redis_that_was_emptied_nothing_is_produced(world):
    world.settled = {TP0: 7}
    world.change_now(ANN, 1)
    world.current = False

    with pytest.raises(Transient, match="compared"):
        await world.flush.flush({0})

    assert world.emitter.sent == []
    assert world.commits == []


async def test_marks_that_were_lost_with_redis_move_no_watermark(world):
    """Nothing is marked because everything is gone: that must not look like all was flushed."""
    world.settled = {TP0: 7}

    def empty() -> None:
        world.current = False

    world.marks.after_begin = empty
    with pytest.raises(Transient, match="compared"):
        await world.flush.flush({0})

    assert world.commits == []


async def test_a_partition_that_is_lost_in_the_middle_is_left_to_its_new_owner(world):
    world.settled = {TP0: 7, TP1: 3}
    world.change_now(ANN, 1)
    world.change_now(BEN, 2, partition=1)
    world.marks.after_begin = lambda: world.owned.discard(TP0)

    await world.flush.flush({0, 1})

    assert [who for who, _, _ in world.published] == [BEN]
    assert world.marks.marked(0) == {ANN}
    assert world.commits == [{TP1: 3}]


@in_virtual_time
async def test_it_flushes_once_in_a_while_but_not_while_the_lane_is_held() -> None:
    world = World()
    world.change_now(ANN, 1)
    world.open = False
    running = asyncio.create_task(world.flush.keep_flushing())
    await asyncio.sleep(130)
    assert world.emitter.sent == []

    world.open = True
    await wait_until(lambda: world.emitter.sent, timeout=61)
    world.change_now(ANN, 2)
    await asyncio.sleep(30)
    assert len(world.emitter.sent) == 1
    await asyncio.sleep(31)
    assert len(world.emitter.sent) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_trouble_leaves_the_marks_for_the_next_time() -> None:
    world = World()
    world.change_now(ANN, 1)
    world.emitter.fail(2)
    running = asyncio.create_task(world.flush.keep_flushing())

    await asyncio.sleep(181)

    assert [who for who, _, _ in world.published] == [ANN]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_lane_that_stops_flushes_what_it_owned_last() -> None:
    world = World()
    running = asyncio.create_task(world.flush.keep_flushing())
    await asyncio.sleep(61)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.change_now(ANN, 1)
    world.owned.clear()

    await world.flush.flush_last()

    assert [who for who, _, _ in world.published] == [ANN]


@in_virtual_time
async def test_the_last_flush_gives_up_soon() -> None:
    world = World()
    world.change_now(ANN, 1)

    class DeafEmitter(FakeEmitter):
        async def emit(self, messages) -> None:
            await asyncio.Event().wait()

    async with asyncio.timeout(6):
        await world.another_worker(DeafEmitter()).flush_last()

    assert world.marks.marked(0) == {ANN}
