"""The view guard among fakes, in virtual time: no lane builds on a Redis that is behind Kafka."""

import asyncio
from collections.abc import Sequence

import pytest

from schemas.errors import Transient
from streams.engine.outcomes import Result
from streams.view_guard import HOLD, QUIET_SECONDS, GuardedLane, Partitions, ViewGuard
from tests.fakes.engine import DONE, TOPIC, Bench, Change, FakeCheckpoints, FakeLane
from tests.fakes.virtual_time import in_virtual_time
from tests.stack import wait_until

TP0, TP1 = (TOPIC, 0), (TOPIC, 1)


class FakeView:
    """A Redis with the view in it: `restart` keeps, loses or restores what is there."""

    def __init__(self) -> None:
        self.id = "redis-1"
        self.partitions: dict[int, str] = {}
        self.stamped = False
        self.stamps = 0
        self.offsets: Partitions = {}
        self.admitted: str | None = "never set"
        self.admitted_stamp: str | None = "never set"
        self.is_down = False
        self.calls: list[str] = []

    def restart(self, *, offsets: Partitions | None = None, stamped: bool = True) -> None:
        """Another process answers, with `offsets` as its checkpoints (None: the same)."""
        self.id += "'"
        self.offsets = self.offsets if offsets is None else offsets
        self.stamped = stamped
        self.partitions = dict(self.partitions) if stamped else {}

    async def _answer(self, call: str) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise Transient("redis", "gone")
        self.calls.append(call)

    async def run_id(self) -> str:
        await self._answer("run_id")
        return self.id

    async def verified(self) -> dict[int, str]:
        await self._answer("verified")
        return dict(self.partitions)

    async def verify(self, partition: int, run_id: str) -> None:
        await self._answer("verify")
        assert self.admitted == run_id == self.id
        self.partitions[partition] = run_id

    async def current_stamp(self) -> str | None:
        await self._answer("current_stamp")
        return f"stamp-{self.stamps}" if self.stamped else None

    async def stamp(self) -> str:
        await self._answer("stamp")
        assert self.admitted == self.id
        self.stamped = True
        self.stamps += 1
        return f"stamp-{self.stamps}"

    async def checkpoints(self) -> Partitions:
        await self._answer("checkpoints")
        return dict(self.offsets)

    async def store_checkpoints(self, offsets: Partitions) -> None:
        await self._answer("store_checkpoints")
        assert self.admitted == self.id
        assert self.stamped
        assert self.admitted_stamp == f"stamp-{self.stamps}"
        self.offsets |= offsets

    def admit(self, run_id: str | None, stamp: str | None) -> None:
        self.admitted = run_id
        self.admitted_stamp = stamp


class FakePipeline:
    """The pipeline as the guard sees it."""

    def __init__(self) -> None:
        self.held: str | None = None
        self.frozen = False
        self.trusted: frozenset[tuple[str, int]] | None = None
        self.ends: Partitions = {}
        self.is_quiet = asyncio.Event()
        self.is_quiet.set()

    def hold(self, name: str, detail: str, *, freeze: bool = False) -> None:
        assert name == HOLD
        self.held = detail
        self.frozen = freeze

    def unhold(self, name: str) -> None:
        assert name == HOLD
        self.held = None
        self.frozen = False

    async def quiet(self) -> None:
        assert self.held, "without a hold it may never be quiet"
        await self.is_quiet.wait()

    def settled_ends(self) -> Partitions:
        return dict(self.ends)

    def trust(self, partitions: frozenset[tuple[str, int]]) -> None:
        self.trusted = partitions


class Setting:
    """A lane, its view and its guard; `owner` for the lane that can rebuild the view.

    `restores` for a lane with state of its own; `watermarks` say what of its input is in there.
    """

    def __init__(
        self, *, owner: bool, replays: bool = True, restores: bool = False, partitions: int = 2
    ) -> None:
        self.view = FakeView()
        self.pipeline = FakePipeline()
        self.assigned = {TP0, TP1}
        self.committed: Partitions = {}
        self.replayed: list[tuple[tuple[str, int], int | None, int]] = []
        self.rebuilt: list[set[int]] = []
        self.restored: list[set[tuple[str, int]]] = []
        self.watermarks: Partitions = {}
        self.fails: list[Transient] = []
        self._is = owner, replays, restores, partitions
        self.build()

    def build(self, *, replay=None, restore=None) -> None:
        """Make the guard; `replay` and `restore` in place of this setting's own."""
        owner, replays, restores, partitions = self._is
        self.guard = ViewGuard(
            GuardedLane(
                name="encode" if owner else "items",
                view_partitions=partitions,
                assignment=lambda: set(self.assigned),
                committed=self.committed_of,
                replay=(replay or self.replay) if replays else None,
                rebuild=self.rebuild if owner else None,
                restore=(restore or self.restore) if restores else None,
            ),
            self.view,
            self.pipeline,
        )

    async def committed_of(self, partitions: set[tuple[str, int]]) -> Partitions:
        await asyncio.sleep(0)
        return {tp: offset for tp, offset in self.committed.items() if tp in partitions}

    async def replay(self, tp: tuple[str, int], start: int | None, end: int) -> int:
        assert self.pipeline.held
        assert self.pipeline.frozen
        assert self.view.admitted == self.view.id
        if self.fails:
            raise self.fails.pop()
        self.replayed.append((tp, start, end))
        return end - (start or 0)

    async def rebuild(self, partitions: set[int]) -> int:
        assert self.pipeline.held
        assert self.view.admitted == self.view.id
        if self.fails:
            raise self.fails.pop()
        self.rebuilt.append(partitions)
        return 5

    async def restore(self, partitions: set[tuple[str, int]]) -> Partitions:
        assert self.pipeline.held
        assert self.pipeline.frozen
        assert self.view.admitted == self.view.id
        if self.fails:
            raise self.fails.pop()
        assert not self.replayed, "first what was kept, then what came since"
        self.restored.append(partitions)
        return {tp: offset for tp, offset in self.watermarks.items() if tp in partitions}

    def everything_was_verified(self) -> None:
        self.view.partitions = {0: self.view.id, 1: self.view.id}
        self.view.stamped = True

    def is_open(self) -> bool:
        return self.pipeline.held is None and self.view.admitted == self.view.id

    def is_closed(self) -> bool:
        return (
            self.pipeline.held is not None and self.pipeline.frozen and self.view.admitted is None
        )


# ---- before anything is known ------------------------------------------------------------


@in_virtual_time
async def test_until_the_first_look_the_lane_holds_and_redis_is_fenced() -> None:
    setting = Setting(owner=False)

    assert setting.is_closed()
    assert setting.pipeline.held == "not verified yet"
    assert setting.pipeline.trusted == frozenset()


@in_virtual_time
async def test_a_whole_view_lets_the_lane_go_on() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.view.offsets = {TP0: 10, TP1: 4}
    setting.committed = {TP0: 10, TP1: 4}

    await setting.guard.look()

    assert setting.is_open()
    assert setting.replayed == []
    assert setting.pipeline.trusted == frozenset({TP0, TP1})


@in_virtual_time
async def test_on_a_new_deployment_the_owner_declares_the_empty_view_whole() -> None:
    setting = Setting(owner=True)

    await setting.guard.look()

    assert setting.is_open()
    assert setting.view.partitions == {0: "redis-1", 1: "redis-1"}
    assert setting.view.stamped
    assert setting.replayed == []


# ---- lost, emptied, restored -------------------------------------------------------------


@in_virtual_time
async def test_the_owner_rebuilds_an_emptied_redis_and_reads_all_its_input_again() -> None:
    setting = Setting(owner=True)
    setting.committed = {TP0: 100, TP1: 50}
    await setting.guard.look()
    setting.rebuilt.clear()
    setting.replayed.clear()
    setting.view.restart(offsets={}, stamped=False)

    await setting.guard.look()

    assert setting.rebuilt == [{0, 1}]
    assert setting.replayed == [(TP0, None, 100), (TP1, None, 50)]
    assert setting.view.offsets == {TP0: 100, TP1: 50}
    assert setting.is_open()


@in_virtual_time
async def test_from_an_older_snapshot_only_what_is_behind_is_rebuilt_and_read_again() -> None:
    setting = Setting(owner=True)
    setting.everything_was_verified()
    setting.view.restart(offsets={TP0: 60, TP1: 50})
    setting.committed = {TP0: 100, TP1: 50}

    await setting.guard.look()

    assert setting.rebuilt == [{0}]
    assert setting.replayed == [(TP0, 60, 100)]
    assert setting.view.partitions == {0: "redis-1'", 1: "redis-1'"}
    assert setting.is_open()


@in_virtual_time
async def test_what_was_settled_but_not_committed_counts_as_done() -> None:
    setting = Setting(owner=True)
    setting.everything_was_verified()
    setting.view.restart(offsets={TP0: 100, TP1: 50})
    setting.committed = {TP0: 100, TP1: 50}
    setting.pipeline.ends = {TP0: 130}

    await setting.guard.look()

    assert setting.rebuilt == [{0}]
    assert setting.replayed == [(TP0, 100, 130)]


@in_virtual_time
async def test_handlers_that_still_run_end_before_anything_is_compared() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.view.offsets = {TP0: 100, TP1: 50}
    setting.committed = {TP0: 100, TP1: 50}
    setting.pipeline.is_quiet.clear()
    looking = asyncio.create_task(setting.guard.look())
    await asyncio.sleep(5)
    assert not looking.done()
    assert "checkpoints" not in setting.view.calls

    setting.pipeline.ends = {TP1: 57}
    setting.pipeline.is_quiet.set()
    await looking

    assert setting.replayed == [(TP1, 50, 57)]
    assert setting.is_open()


@in_virtual_time
async def test_a_handler_that_hangs_keeps_the_lane_closed_and_says_so() -> None:
    setting = Setting(owner=True)
    setting.committed = {TP0: 100}
    setting.pipeline.is_quiet.clear()

    with pytest.raises(Transient, match=f"handlers still run after {QUIET_SECONDS:g} s"):
        await setting.guard.look()

    assert setting.rebuilt == []


@in_virtual_time
async def test_a_lane_without_a_rebuild_waits_for_the_owner_and_then_catches_up() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.committed = {TP0: 100, TP1: 50}
    setting.view.offsets = dict(setting.committed)
    await setting.guard.look()
    setting.view.restart(offsets={TP0: 70, TP1: 50}, stamped=False)

    await setting.guard.look()
    assert setting.is_closed()
    assert setting.pipeline.held == "rebuilding: partitions [0, 1] of the view are not verified"
    assert setting.replayed == []
    assert setting.pipeline.trusted == frozenset()

    setting.view.partitions = {0: setting.view.id, 1: setting.view.id}
    await setting.guard.look()
    assert setting.is_closed(), "verified, but not stamped yet"

    setting.view.stamped = True
    await setting.guard.look()
    assert setting.replayed == [(TP0, 70, 100)]
    assert setting.is_open()


@in_virtual_time
async def test_emptied_by_hand_the_same_process_is_caught_up_with_again() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.committed = {TP0: 9, TP1: 9}
    setting.view.offsets = dict(setting.committed)
    await setting.guard.look()
    setting.view.partitions, setting.view.offsets = {}, {}
    await setting.guard.look()

    setting.view.partitions = {0: setting.view.id, 1: setting.view.id}
    await setting.guard.look()

    assert setting.replayed == [(TP0, None, 9), (TP1, None, 9)]


@in_virtual_time
async def test_a_lane_that_writes_no_redis_never_replays() -> None:
    setting = Setting(owner=False, replays=False)
    setting.everything_was_verified()
    setting.committed = {TP0: 100, TP1: 50}

    await setting.guard.look()

    assert setting.is_open()


@in_virtual_time
async def test_a_view_that_was_emptied_and_put_back_between_two_looks_is_noticed() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.committed = {TP0: 9, TP1: 9}
    setting.view.offsets = dict(setting.committed)
    await setting.guard.look()

    # The owner is quicker than this lane's next look: all it left behind is another stamp.
    setting.view.stamps += 1
    setting.view.offsets = {}
    await setting.guard.look()

    assert setting.replayed == [(TP0, None, 9), (TP1, None, 9)]
    assert setting.is_open()
    assert setting.view.admitted_stamp == "stamp-1"


@in_virtual_time
async def test_checkpoints_may_only_go_into_the_view_that_was_compared() -> None:
    setting = Setting(owner=True)
    assert setting.view.admitted_stamp is None

    await setting.guard.look()
    assert setting.view.admitted_stamp == "stamp-1"

    setting.view.restart(stamped=False)
    setting.view.partitions = {0: setting.view.id, 1: setting.view.id}
    await setting.guard.look()
    assert setting.view.admitted_stamp == "stamp-2"


# ---- lanes with state of their own -------------------------------------------------------


@in_virtual_time
async def test_what_a_lane_keeps_is_put_back_and_only_later_input_is_read_again() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()
    setting.view.offsets = {TP1: 20}
    setting.committed = {TP0: 100, TP1: 50}
    setting.watermarks = {TP0: 90, TP1: 10}

    await setting.guard.look()

    assert setting.restored == [{TP0, TP1}]
    assert setting.replayed == [(TP0, 90, 100), (TP1, 20, 50)]
    assert setting.view.offsets == {TP0: 100, TP1: 50}
    assert setting.is_open()


@in_virtual_time
async def test_a_partition_is_whole_once_its_state_is_back_not_once_it_is_assigned() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()
    setting.assigned = {TP0}
    setting.committed = {TP1: 50}
    seen: list[frozenset[tuple[str, int]]] = []

    async def seen_restore(partitions: set[tuple[str, int]]) -> Partitions:
        seen.append(setting.guard.whole)
        return await setting.restore(partitions)

    async def seen_replay(tp: tuple[str, int], start: int | None, end: int) -> int:
        seen.append(setting.guard.whole)
        return await setting.replay(tp, start, end)

    setting.build(replay=seen_replay, restore=seen_restore)
    assert setting.guard.whole == frozenset()
    await setting.guard.look()
    setting.restored.clear()
    setting.assigned = {TP0, TP1}
    assert setting.guard.whole == {TP0}

    await setting.guard.look()

    assert seen == [frozenset(), {TP0}, {TP0, TP1}]
    assert setting.guard.whole == {TP0, TP1}
    setting.view.stamps += 1
    setting.view.stamped = False
    await setting.guard.look()
    assert setting.guard.whole == frozenset()


@in_virtual_time
async def test_without_a_watermark_all_input_is_read_again() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()
    setting.view.offsets = {TP1: 50}
    setting.committed = {TP0: 100, TP1: 50}

    await setting.guard.look()

    assert setting.restored == [{TP0}]
    assert setting.replayed == [(TP0, None, 100)]


@in_virtual_time
async def test_state_is_put_back_though_the_group_has_no_offsets_any_more() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()

    await setting.guard.look()

    assert setting.restored == [{TP0, TP1}]
    assert setting.replayed == []
    assert setting.view.offsets == {TP0: 0, TP1: 0}
    setting.assigned = {TP0}
    await setting.guard.look()
    setting.assigned = {TP0, TP1}
    await setting.guard.look()
    assert setting.restored == [{TP0, TP1}], "noted as whole: not put back with every rebalance"


@in_virtual_time
async def test_nothing_is_put_back_into_a_redis_that_has_everything() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()
    setting.view.offsets = {TP0: 100, TP1: 50}
    setting.committed = {TP0: 100, TP1: 50}

    await setting.guard.look()

    assert setting.restored == []
    assert setting.is_open()


@in_virtual_time
async def test_a_lane_whose_state_could_not_be_put_back_stays_closed_and_begins_again() -> None:
    setting = Setting(owner=False, restores=True)
    setting.everything_was_verified()
    setting.committed = {TP0: 100, TP1: 50}
    setting.watermarks = {TP0: 100, TP1: 50}
    setting.fails = [Transient("kafka", "no answer")]
    watching = asyncio.create_task(setting.guard.watch())
    await wait_until(lambda: not setting.fails)
    await wait_until(setting.is_closed, interval=0)
    assert setting.view.offsets == {}

    await wait_until(setting.is_open)

    assert setting.restored == [{TP0, TP1}]
    assert setting.view.offsets == {TP0: 100, TP1: 50}
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


# ---- several workers ---------------------------------------------------------------------


@in_virtual_time
async def test_partitions_of_another_worker_keep_the_owner_closed_until_they_are_verified() -> None:
    setting = Setting(owner=True)
    setting.assigned = {TP0}

    await setting.guard.look()
    assert setting.view.partitions == {0: "redis-1"}
    assert setting.is_closed()
    assert setting.pipeline.held == "rebuilding: partitions [1] of the view are not verified"

    setting.view.partitions[1] = "redis-1"
    await setting.guard.look()
    assert setting.is_open()


@in_virtual_time
async def test_a_partition_that_arrives_is_compared_before_its_checkpoint_is_trusted() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.assigned = {TP0}
    setting.committed = {TP0: 5, TP1: 80}
    setting.view.offsets = {TP0: 5, TP1: 20}
    await setting.guard.look()
    assert setting.pipeline.trusted == frozenset({TP0})

    setting.assigned = {TP0, TP1}
    await setting.guard.look()

    assert setting.replayed == [(TP1, 20, 80)]
    assert setting.pipeline.trusted == frozenset({TP0, TP1})
    assert setting.is_open()


@in_virtual_time
async def test_a_partition_that_left_is_compared_again_when_it_comes_back() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    await setting.guard.look()
    setting.assigned = {TP0}
    await setting.guard.look()
    setting.committed = {TP1: 30}
    setting.view.offsets = {TP1: 10}
    setting.assigned = {TP0, TP1}

    await setting.guard.look()

    assert setting.replayed == [(TP1, 10, 30)]


# ---- trouble while looking ---------------------------------------------------------------


@in_virtual_time
async def test_a_redis_that_does_not_answer_closes_the_lane_and_a_later_look_opens_it() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    setting.committed = {TP0: 100}
    setting.view.offsets = {TP0: 100}
    watching = asyncio.create_task(setting.guard.watch())
    await wait_until(setting.is_open)

    setting.view.is_down = True
    await wait_until(setting.is_closed)
    assert setting.pipeline.held == "redis: gone"
    setting.view.is_down = False
    setting.view.calls.clear()
    await wait_until(setting.is_open)

    assert "checkpoints" not in setting.view.calls, "the same process: nothing to compare"
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("failures", [1, 3])
@in_virtual_time
async def test_a_restore_that_fails_is_begun_again_and_verifies_nothing_before(
    failures: int,
) -> None:
    setting = Setting(owner=True)
    setting.committed = {TP0: 100, TP1: 50}
    setting.fails = [Transient("kafka", "no answer")] * failures
    watching = asyncio.create_task(setting.guard.watch())
    await wait_until(lambda: len(setting.fails) < failures)
    await wait_until(setting.is_closed, interval=0)
    assert setting.view.partitions == {}
    assert setting.pipeline.held == "kafka: no answer"

    await wait_until(setting.is_open)

    assert setting.view.partitions == {0: "redis-1", 1: "redis-1"}
    assert setting.replayed[-2:] == [(TP0, None, 100), (TP1, None, 50)]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@in_virtual_time
async def test_a_second_restart_in_the_middle_of_a_look_is_noticed_at_the_next() -> None:
    setting = Setting(owner=False)
    setting.everything_was_verified()
    await setting.guard.look()
    setting.view.restart()
    first = setting.view.id
    setting.view.partitions = {0: first, 1: first}
    looking = asyncio.create_task(setting.guard.look())
    await wait_until(lambda: setting.view.calls[-1] == "verified", interval=0)
    setting.view.restart()
    await looking

    assert setting.view.admitted == first, "the fence refuses the process that answers now"
    assert not setting.is_open()
    await setting.guard.look()
    assert setting.is_closed()


# ---- with the real pipeline --------------------------------------------------------------


@in_virtual_time
async def test_what_settled_in_the_old_redis_is_read_again_into_the_new_one() -> None:
    """The window between a handler's write to Redis and the checkpoint of it."""
    view, checkpoints = FakeView(), FakeCheckpoints()
    view.partitions, view.stamped = {0: view.id}, True
    gates: dict[str, asyncio.Event] = {"a": asyncio.Event(), "b": asyncio.Event()}
    replayed: list[tuple[int | None, int]] = []

    async def behaviour(batch: Sequence[Change]) -> Sequence[Result]:
        for change in batch:
            await gates[change.id].wait()
        return [DONE] * len(batch)

    async def committed(_partitions: set[tuple[str, int]]) -> Partitions:
        return {}

    async def replay(_tp: tuple[str, int], start: int | None, end: int) -> int:
        assert checkpoints.calls == 0, "what is settled must not be checkpointed before"
        replayed.append((start, end))
        return end

    async with Bench(FakeLane(behaviour), checkpoints=checkpoints) as bench:
        guard = ViewGuard(
            GuardedLane("items", 1, lambda: {TP0}, committed, replay), view, bench.pipeline
        )
        await guard.look()
        bench.admit("a", 1)
        await wait_until(lambda: bench.pipeline.is_handling)
        bench.admit("b", 1)
        view.restart()
        view.partitions = {0: view.id}
        looking = asyncio.create_task(guard.look())
        await wait_until(lambda: "redis" in bench.pipeline.holds, interval=0)
        gates["a"].set()
        await looking

        assert replayed == [(None, 1)], "settled after the restart was seen, before it was compared"
        assert view.offsets == {TP0: 1}
        await wait_until(lambda: bench.acked() == [0])
        gates["b"].set()
        await wait_until(lambda: bench.acked() == [0, 1])
        assert checkpoints.offsets == {TP0: 2}
