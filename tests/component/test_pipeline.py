"""The engine as a whole, among fakes, in virtual time: see tests/fakes/engine.py."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from schemas.errors import InvalidInput, Permanent, Transient
from schemas.reasons import Reason
from streams.engine.circuits import RetrySchedule
from streams.engine.lane import LaneLimits
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.pipeline import FailurePolicy
from streams.engine.standing_aside import StandingAside
from streams.engine.uncancelled import CancelledFromInside
from tests.fakes.clock import START_MS
from tests.fakes.engine import (
    DONE,
    TOPIC,
    Bench,
    Change,
    FakeAdmission,
    FakeCheckpoints,
    FakeLane,
)
from tests.fakes.virtual_time import LoopClock, in_virtual_time
from tests.stack import wait_until

NO_LINGER = LaneLimits(linger_seconds=0)


async def passes(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


class Gates:
    """A behaviour in which each entity is written when its gate is opened."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.written: list[Change] = []

    def gate(self, id_: str) -> asyncio.Event:
        return self.open.setdefault(id_, asyncio.Event())

    async def __call__(self, batch: Sequence[Change]) -> Sequence[Result]:
        for change in batch:
            await self.gate(change.id).wait()
            self.written.append(change)
        return [DONE] * len(batch)


class Outage:
    """A behaviour that fails as a whole while `is_on`, or always for the entities in `bad`."""

    def __init__(self) -> None:
        self.is_on = False
        self.bad: set[str] = set()
        self.attempts: list[tuple[float, list[str]]] = []
        self.retry_after: float | None = None

    async def __call__(self, batch: Sequence[Change]) -> Sequence[Result]:
        ids = [change.id for change in batch]
        self.attempts.append((asyncio.get_running_loop().time(), ids))
        await asyncio.sleep(0.01)
        if self.is_on or self.bad & set(ids):
            raise Transient("redis", "gone", retry_after_seconds=self.retry_after)
        return [DONE] * len(batch)


def one_at_a_time(in_flight: int = 3) -> LaneLimits:
    return LaneLimits(max_batch=1, max_batches_in_flight=in_flight, linger_seconds=0)


# ---- settling and acknowledging ----------------------------------------------------------


@in_virtual_time
async def test_out_of_order_completion_acknowledges_only_the_prefix() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time()) as bench:
        for id_ in "abc":
            bench.admit(id_, 1)
        gates.gate("c").set()
        gates.gate("b").set()
        await wait_until(lambda: len(gates.written) == 2)
        await passes(1)
        assert bench.acked() == []
        assert bench.observer.outcomes() == ["written", "written"]

        gates.gate("a").set()
        await wait_until(lambda: bench.acked() == [0, 1, 2])
        assert bench.pipeline.open_records == 0


@in_virtual_time
async def test_partitions_do_not_wait_for_each_other() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time()) as bench:
        bench.admit("a", 1, partition=0)
        bench.admit("b", 1, partition=1)
        gates.gate("b").set()

        await wait_until(lambda: bench.acked(1) == [0])
        assert bench.acked(0) == []
        assert bench.pipeline.oldest_timestamps_ms() == {(TOPIC, 0): 1_000}
        assert bench.pipeline.settled_ends() == {(TOPIC, 1): 1}


@in_virtual_time
async def test_coalesced_records_settle_with_their_survivor() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time()) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: bench.lane.running == 1)
        for version in (2, 4, 3):
            bench.admit("a", version)
        bench.admit("b", 1)
        gates.gate("b").set()
        await wait_until(lambda: bench.observer.outcomes() == ["written"])
        assert bench.acked() == []

        gates.gate("a").set()
        await wait_until(lambda: len(bench.acked()) == 5)

        assert [(c.id, c.version) for c in gates.written] == [("b", 1), ("a", 1), ("a", 4)]
        assert sorted(bench.observer.outcomes()) == ["superseded"] * 2 + ["written"] * 3


@in_virtual_time
async def test_an_entity_is_in_one_handler_at_a_time() -> None:
    lane = FakeLane()
    async with Bench(lane, one_at_a_time(in_flight=4)) as bench:
        for number in range(200):
            bench.admit(f"{number % 3}", number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        await wait_until(lambda: bench.acks.count == 200)

    assert lane.most_running > 1, "different entities run side by side"
    assert [lane.written[id_][-1] for id_ in "012"] == [198, 199, 197]
    assert all(versions == sorted(versions) for versions in lane.written.values())


@in_virtual_time
async def test_delayed_units_wait_for_their_time_and_hold_their_partition() -> None:
    async with Bench(FakeLane()) as bench:
        bench.admit("a", f"1@{START_MS + 20_000}")
        bench.admit("b", 1)
        await passes(19)
        assert bench.lane.written == {"b": [1]}
        assert bench.acked() == []
        assert bench.pipeline.is_stuck

        await passes(1.5)
        assert bench.acked() == [0, 1]


# ---- batches and back-pressure -----------------------------------------------------------


@in_virtual_time
async def test_batches_are_bounded_by_count() -> None:
    async with Bench(FakeLane(), LaneLimits(max_batch=4, linger_seconds=0)) as bench:
        for number in range(10):
            bench.admit(f"{number}", 1)
        await wait_until(lambda: bench.acks.count == 10)

    assert bench.observer.batches == [4, 4, 2]


@in_virtual_time
async def test_under_load_it_waits_for_a_fuller_batch_and_alone_it_does_not() -> None:
    loop = asyncio.get_running_loop()
    async with Bench(FakeLane(), LaneLimits(linger_seconds=0.005)) as bench:
        before = loop.time()
        bench.admit("lonely", 1)
        await wait_until(lambda: bench.acks.count == 1, interval=0.000_1)
        assert loop.time() - before < 0.001

        for number in range(2_000):
            bench.admit(f"{number}", 1)
            await passes(0.000_1)
        await wait_until(lambda: bench.acks.count == 2_001)

    assert sum(bench.observer.batches[-20:]) / 20 > 30


@in_virtual_time
async def test_a_drain_finishes_what_is_in_handlers_and_starts_nothing_else() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time(1)) as bench:
        bench.admit("a", 1)
        bench.admit("b", 1)
        await wait_until(lambda: bench.lane.running == 1)
        bench.pipeline.start_drain()
        assert not bench.pipeline.is_stuck, "a handler is at work"
        gates.gate("a").set()
        await wait_until(lambda: bench.acked() == [0])
        await passes(60)
        assert bench.lane.running == 0
        assert bench.pipeline.is_stuck, "what only waits is to be abandoned"

        bench.pipeline.end_drain()
        gates.gate("b").set()
        await wait_until(lambda: bench.acked() == [0, 1])


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (LaneLimits(max_records=5), 5),
        (LaneLimits(max_bytes=3 * len("item:0") + 3), 3),
    ],
)
@in_virtual_time
async def test_room_ends_at_the_bound_and_comes_back_with_acknowledgements(
    limits: LaneLimits, fits: int
) -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), limits) as bench:
        admitted = 0
        while bench.pipeline.has_room:
            bench.admit(f"{admitted}", 1)
            admitted += 1
        assert admitted == fits

        waiting = asyncio.create_task(bench.pipeline.room())
        await passes(5)
        assert not waiting.done()
        for number in range(admitted):
            gates.gate(f"{number}").set()
        await waiting
        assert bench.pipeline.has_room


@in_virtual_time
async def test_a_record_larger_than_all_the_room_still_passes() -> None:
    async with Bench(FakeLane(), LaneLimits(max_bytes=2)) as bench:
        bench.admit("a", 1)
        assert not bench.pipeline.has_room
        await bench.pipeline.room()
        assert bench.acked() == [0]


# ---- transient failures ------------------------------------------------------------------


@in_virtual_time
async def test_an_outage_holds_the_partition_sends_single_probes_and_blames_nobody() -> None:
    outage = Outage()
    outage.is_on = True
    async with Bench(FakeLane(outage), LaneLimits(max_batch=50, linger_seconds=0)) as bench:
        for number in range(300):
            bench.admit(f"{number}", 1)
        await passes(3 * 3600)
        assert bench.acks.count == 0
        assert bench.pipeline.circuits.open_circuits() == {"redis": "gone"}
        assert bench.lane.most_running == 1
        assert len(outage.attempts[0][1]) == 50
        assert {len(ids) for _, ids in outage.attempts[1:]} == {1}
        gaps = [
            later - earlier
            for (earlier, _), (later, _) in zip(outage.attempts, outage.attempts[1:], strict=False)
        ]
        assert max(gaps) <= 15.1
        assert min(gaps[10:]) > 7

        outage.is_on = False
        before = len(outage.attempts)
        await passes(31)

        assert bench.acked() == list(range(300))
        assert bench.letters.letters == []
        assert bench.pipeline.circuits.open_circuits() == {}
        assert len(outage.attempts) - before < 30, "not one by one after the outage"


@in_virtual_time
async def test_a_dependency_that_names_a_time_is_not_asked_before() -> None:
    outage = Outage()
    outage.is_on = True
    outage.retry_after = 100.0
    async with Bench(FakeLane(outage), NO_LINGER) as bench:
        bench.admit("a", 1)
        await passes(250)
        assert len(outage.attempts) == 3
        assert outage.attempts[1][0] - outage.attempts[0][0] >= 100

        outage.is_on = False
        await passes(101)
        assert bench.acked() == [0]


@in_virtual_time
async def test_a_record_that_fails_alone_is_a_dead_letter_and_its_neighbours_pass() -> None:
    async def behaviour(batch: Sequence[Change]) -> Sequence[Result]:
        await asyncio.sleep(0.001)
        return [Transient("redis", "too deep") if change.id == "bad" else DONE for change in batch]

    policy = FailurePolicy(RetrySchedule(0.2, 2.0), max_attempts_alone=4)
    async with Bench(FakeLane(behaviour), NO_LINGER, policy) as bench:
        bench.admit("bad", 7)
        slowest = 0.0
        for number in range(100):
            before = asyncio.get_running_loop().time()
            bench.admit(f"{number}", 1, partition=1)
            await wait_until(lambda: bench.acks.count > number)  # noqa: B023  # awaited here
            slowest = max(slowest, asyncio.get_running_loop().time() - before)
            await passes(0.2)
            if bench.letters.letters:
                break
        await wait_until(lambda: bench.acked() == [0])

        (letter,) = bench.letters.letters
        assert letter.reason is Reason.FAILS_ALONE
        assert letter.value == b"7"
        assert letter.attempts >= 5, "the first failure proves nothing"
        assert slowest < 2.5, "a neighbour waits for one probe at most"


@in_virtual_time
async def test_a_record_that_takes_whole_batches_down_is_found() -> None:
    outage = Outage()
    outage.bad = {"bad"}
    policy = FailurePolicy(RetrySchedule(0.1, 1.0), max_attempts_alone=3)
    limits = LaneLimits(max_batch=20, linger_seconds=0)
    async with Bench(FakeLane(outage), limits, policy) as bench:
        for number in range(40):
            bench.admit("bad" if number == 13 else f"{number}", 1)
            if number % 5 == 4:
                await passes(0.5)
        for number in range(200):
            if bench.pipeline.open_records:
                bench.admit(f"more {number}".replace(" ", "-"), 1, partition=1)
                await passes(0.5)
        await wait_until(lambda: bench.acked() == list(range(40)))

        (letter,) = bench.letters.letters
        assert letter.reason is Reason.FAILS_ALONE
        assert letter.key == b"item:bad"


@in_virtual_time
async def test_a_dependency_that_is_merely_busy_blames_nobody() -> None:
    loop = asyncio.get_running_loop()

    async def behaviour(batch: Sequence[Change]) -> Sequence[Result]:
        return [
            Transient("vllm", "429", retry_after_seconds=1.0)
            if change.id == "unlucky" and loop.time() < 1_100
            else Settled(Outcome.WRITTEN, called=("vllm",))
            for change in batch
        ]

    policy = FailurePolicy(max_attempts_alone=2)
    async with Bench(FakeLane(behaviour), NO_LINGER, policy) as bench:
        bench.admit("unlucky", 1)
        for number in range(120):
            bench.admit(f"{number}", 1, partition=1)
            await passes(1)

        assert bench.letters.letters == []
        assert bench.acked() == [0]


@in_virtual_time
async def test_failures_beside_successes_do_not_stop_the_lane() -> None:
    async def behaviour(batch: Sequence[Change]) -> Sequence[Result]:
        return [
            Transient("redis", "no") if change.id.startswith("bad") else DONE for change in batch
        ]

    async with Bench(FakeLane(behaviour), NO_LINGER) as bench:
        for number in range(20):
            bench.admit(f"bad{number}", 1)
        bench.admit("good", 1)
        await wait_until(lambda: len(bench.observer.outcomes()) == 1)
        assert bench.pipeline.circuits.open_circuits() == {}


@in_virtual_time
async def test_a_failed_unit_takes_along_what_arrived_meanwhile() -> None:
    outage = Outage()
    outage.is_on = True
    async with Bench(FakeLane(outage), NO_LINGER) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: bench.lane.running == 1, interval=0.001)
        bench.admit("a", 2)
        await passes(0.05)
        bench.admit("a", 3)
        outage.is_on = False
        await wait_until(lambda: bench.acked() == [0, 1, 2])

        assert [change.version for change in bench.lane.batches[-1]] == [3]


# ---- dead letters ------------------------------------------------------------------------


@in_virtual_time
async def test_an_invalid_record_is_a_dead_letter_untouched_and_then_acknowledged() -> None:
    async with Bench(FakeLane(), NO_LINGER) as bench:

        def buried_first(token: tuple[int, int]) -> None:
            assert len(bench.letters.letters) == 1

        bench.acks.before = buried_first
        bench.admit("a", "!not\u2603json", partition=3, offset=17)
        await wait_until(lambda: bench.acked(3) == [17])

        (letter,) = bench.letters.letters
        assert (letter.key, letter.value) == (b"item:a", "!not\u2603json".encode())
        assert letter.headers == (("trace", b"\x00\xff"),)
        assert (letter.topic, letter.partition, letter.offset) == (TOPIC, 3, 17)
        assert (letter.stage, letter.group, letter.attempts) == ("fake.decode", "group", 1)
        assert letter.reason is Reason.NOT_JSON
        assert bench.observer.records[0].outcome is Outcome.DEAD_LETTERED


async def _refuses_bad(batch: Sequence[Change]) -> Sequence[Result]:
    return [Permanent(Reason.REFUSED, "never") if change.id == "bad" else DONE for change in batch]


@in_virtual_time
async def test_nothing_is_acknowledged_past_a_letter_that_the_broker_does_not_have() -> None:
    async with Bench(FakeLane(_refuses_bad), NO_LINGER) as bench:
        bench.letters.is_down = True
        for id_ in ("a", "bad", "b"):
            bench.admit(id_, 1)
        await passes(600)
        assert bench.acked() == [0]
        assert not bench.pipeline.is_stuck
        assert bench.pipeline.circuits.open_circuits() == {"dead-letters": "kafka: no broker"}
        assert bench.letters.calls < 90, "with growing delays: 600 s at half of 15 s or more"
        bench.admit("c", 1)
        await passes(1)
        assert bench.observer.outcomes() == ["written"] * 3, "the others go on"

        bench.letters.is_down = False
        await passes(16)
        assert bench.acked() == [0, 1, 2, 3]
        assert [letter.reason for letter in bench.letters.letters] == [Reason.REFUSED]
        assert bench.pipeline.circuits.open_circuits() == {}


@in_virtual_time
async def test_when_it_was_first_seen_does_not_move_with_the_broker_outage() -> None:
    async with Bench(FakeLane(), NO_LINGER) as bench:
        bench.letters.is_down = True
        bench.admit("a", "!")
        await passes(100)
        bench.letters.is_down = False
        await passes(16)

        assert bench.letters.letters[0].first_seen_ms == START_MS


@in_virtual_time
async def test_superseded_records_settle_with_a_survivor_that_is_a_dead_letter() -> None:
    gates = Gates()

    async def behaviour(batch: Sequence[Change]) -> Sequence[Result]:
        await gates.gate("all").wait()
        return await _refuses_bad(batch)

    async with Bench(FakeLane(behaviour), NO_LINGER) as bench:
        bench.admit("busy", 1)
        await wait_until(lambda: bench.lane.running == 1)
        for version in (1, 2, 3):
            bench.admit("bad", version)
        await passes(10)
        assert bench.acked() == []
        gates.gate("all").set()
        await wait_until(lambda: bench.acked() == [0, 1, 2, 3])

        assert [letter.value for letter in bench.letters.letters] == [b"3"]
        assert sorted(bench.observer.outcomes()) == [
            "dead_lettered",
            "superseded",
            "superseded",
            "written",
        ]


@in_virtual_time
async def test_merged_records_are_all_in_the_dead_letters_because_none_holds_the_others() -> None:
    async with Bench(FakeLane(_refuses_bad, merges=True), NO_LINGER) as bench:
        for version in (1, 2, 3):
            bench.admit("bad", version)
        await wait_until(lambda: bench.acked() == [0, 1, 2])

        assert sorted(letter.value or b"" for letter in bench.letters.letters) == [b"1", b"2", b"3"]
        assert bench.observer.outcomes() == ["dead_lettered"] * 3


@in_virtual_time
async def test_an_entity_waits_until_its_predecessor_is_buried() -> None:
    async with Bench(FakeLane(_refuses_bad), NO_LINGER) as bench:
        bench.letters.is_down = True
        bench.admit("bad", 1)
        await wait_until(lambda: bench.letters.calls > 0)
        bench.admit("bad", 2)
        await passes(5)
        assert len(bench.lane.batches) == 1

        bench.letters.is_down = False
        await passes(20)
        assert [letter.offset for letter in bench.letters.letters] == [0, 1]


@in_virtual_time
async def test_a_flood_of_invalid_records_pauses_the_lane_until_it_is_resumed() -> None:
    policy = FailurePolicy(flood_share=0.5, flood_window=20)
    async with Bench(FakeLane(), NO_LINGER, policy) as bench:
        bench.observer.on_flood = lambda detail: bench.pipeline.hold("paused", detail)
        admitted = 0
        while bench.pipeline.has_room and admitted < 100:
            bench.admit(f"{admitted}", "!" if admitted % 2 else 1)
            admitted += 1
            await asyncio.sleep(0)
        assert admitted == 20
        assert len(bench.observer.floods) == 1
        assert bench.pipeline.holds == {"paused": "not_json: !"}
        await passes(60)
        assert len(bench.letters.letters) == 10, "what is condemned already is buried all the same"
        handled = len(bench.lane.batches)
        assert bench.acks.count < 20

        await passes(60)
        assert len(bench.lane.batches) == handled

        bench.pipeline.unhold("paused")
        await bench.pipeline.room()
        bench.admit("after", 1)
        await wait_until(lambda: bench.acks.count == 21)


# ---- holding -----------------------------------------------------------------------------


@in_virtual_time
async def test_while_held_nothing_is_admitted_and_no_batch_starts() -> None:
    async with Bench(FakeLane()) as bench:
        bench.pipeline.hold("redis", "rebuilding")
        bench.pipeline.hold("paused", "flood")
        assert not bench.pipeline.has_room
        bench.admit("a", 1)
        await passes(60)
        assert bench.lane.batches == []
        assert bench.pipeline.is_stuck

        bench.pipeline.unhold("redis")
        bench.pipeline.unhold("never held")
        waiting = asyncio.create_task(bench.pipeline.room())
        await passes(60)
        assert bench.lane.batches == []
        assert not waiting.done()

        bench.pipeline.unhold("paused")
        await asyncio.wait_for(waiting, 1)
        await wait_until(lambda: bench.acked() == [0])


@in_virtual_time
async def test_the_end_of_a_hold_wakes_an_idle_consumer() -> None:
    async with Bench(FakeLane()) as bench:
        bench.pipeline.hold("redis", "rebuilding")
        waiting = asyncio.create_task(bench.pipeline.room())
        await passes(60)
        assert not waiting.done()

        bench.pipeline.unhold("redis")

        await asyncio.wait_for(waiting, 1)


@in_virtual_time
async def test_quiet_waits_for_handlers_that_run_already() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates)) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: bench.pipeline.is_handling)
        bench.pipeline.hold("redis", "restarted")
        quiet = asyncio.create_task(bench.pipeline.quiet())
        await passes(60)
        assert not quiet.done()

        gates.gate("a").set()
        await quiet
        assert not bench.pipeline.is_handling


# ---- checkpoints -------------------------------------------------------------------------


@in_virtual_time
async def test_an_acknowledgement_is_never_ahead_of_its_checkpoint() -> None:
    checkpoints = FakeCheckpoints()
    async with Bench(FakeLane(), checkpoints=checkpoints) as bench:

        def stored_first(token: tuple[int, int]) -> None:
            assert checkpoints.offsets[TOPIC, token[0]] > token[1]

        bench.acks.before = stored_first
        for number in range(500):
            bench.admit(f"{number % 40}", number, partition=number % 4)
            if number % 9 == 0:
                await asyncio.sleep(0)
        await wait_until(lambda: bench.acks.count == 500)

    assert checkpoints.offsets == {(TOPIC, partition): 125 for partition in range(4)}
    assert checkpoints.calls < 200, "one store for many records"


@in_virtual_time
async def test_while_checkpoints_fail_nothing_is_acknowledged_and_the_reason_shows() -> None:
    checkpoints = FakeCheckpoints()
    checkpoints.is_down = True
    async with Bench(FakeLane(), checkpoints=checkpoints) as bench:
        bench.admit("a", 1)
        await passes(300)
        assert bench.observer.outcomes() == ["written"]
        assert bench.acked() == []
        assert bench.pipeline.circuits.open_circuits() == {"checkpoints": "redis: gone"}
        assert checkpoints.calls < 40

        checkpoints.is_down = False
        await passes(16)
        assert bench.acked() == [0]
        assert bench.pipeline.circuits.open_circuits() == {}


@in_virtual_time
async def test_a_freezing_hold_stores_no_checkpoint_of_what_is_settled_already() -> None:
    checkpoints = FakeCheckpoints()
    gates = Gates()
    async with Bench(FakeLane(gates), checkpoints=checkpoints) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: bench.pipeline.is_handling)
        bench.pipeline.hold("redis", "restarted", freeze=True)
        gates.gate("a").set()
        await bench.pipeline.quiet()
        await passes(60)
        assert bench.observer.outcomes() == ["written"]
        assert checkpoints.calls == 0
        assert bench.pipeline.settled_ends() == {(TOPIC, 0): 1}
        assert bench.pipeline.is_stuck, "a drain must not wait for it"

        bench.pipeline.unhold("redis")
        await wait_until(lambda: bench.acked() == [0])


@in_virtual_time
async def test_quiet_waits_for_a_checkpoint_under_way() -> None:
    checkpoints = FakeCheckpoints()
    checkpoints.gate.clear()
    async with Bench(FakeLane(), checkpoints=checkpoints) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: checkpoints.calls == 1)
        bench.pipeline.hold("redis", "restarted", freeze=True)
        quiet = asyncio.create_task(bench.pipeline.quiet())
        await passes(5)
        assert not quiet.done()

        checkpoints.gate.set()
        await quiet


@in_virtual_time
async def test_partitions_that_are_not_trusted_are_not_checkpointed() -> None:
    checkpoints = FakeCheckpoints()
    async with Bench(FakeLane(), checkpoints=checkpoints) as bench:
        bench.pipeline.trust(frozenset({(TOPIC, 1)}))
        bench.admit("a", 1, partition=0)
        bench.admit("b", 1, partition=1)
        await wait_until(lambda: bench.acked(1) == [0])
        await passes(5)
        assert bench.acked(0) == []

        bench.pipeline.trust(frozenset({(TOPIC, 0), (TOPIC, 1)}))
        await wait_until(lambda: bench.acked(0) == [0])


# ---- rebalances --------------------------------------------------------------------------


@in_virtual_time
async def test_an_abandon_cancels_handlers_and_the_next_generation_starts_anew() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time()) as bench:
        for id_ in "abcd":
            bench.admit(id_, 1)
        gates.gate("b").set()
        await wait_until(lambda: bench.observer.outcomes() == ["written"])

        tokens = bench.pipeline.abandon()

        assert sorted(tokens) == [(0, offset) for offset in range(4)]
        assert bench.pipeline.open_records == 0
        assert bench.pipeline.has_room
        await wait_until(lambda: bench.lane.cancelled == 3)

        bench.generation = 2
        for offset, id_ in enumerate("abcd"):
            gates.gate(id_).set()
            bench.admit(id_, 1, offset=offset)
        await wait_until(lambda: bench.acked() == [0, 1, 2, 3])
        assert bench.observer.outcomes() == ["written"] * 5


@in_virtual_time
async def test_a_handler_that_survives_its_cancellation_settles_nothing() -> None:
    release = asyncio.Event()
    late: list[str] = []

    async def stubborn(batch: Sequence[Change]) -> Sequence[Result]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
            late.append(batch[0].id)
        if batch[0].id == "t":
            raise Transient("redis", "late")
        return [Permanent(Reason.REFUSED) if batch[0].id == "p" else DONE]

    async with Bench(FakeLane(stubborn), one_at_a_time()) as bench:
        bench.admit("a", 1)
        bench.admit("p", 1)
        bench.admit("t", 1)
        await wait_until(lambda: bench.lane.running == 3)
        bench.pipeline.abandon()
        bench.lane.forget_running()
        bench.lane.behaviour = bench.lane.write_all
        bench.generation = 2
        bench.admit("a", 1, offset=0)
        bench.admit("p", 1, offset=1)
        bench.admit("t", 1, offset=2)
        await wait_until(lambda: bench.acked() == [0, 1, 2])

        release.set()
        await wait_until(lambda: sorted(late) == ["a", "p", "t"])
        await passes(5)
        assert bench.acked() == [0, 1, 2]
        assert bench.letters.letters == []
        assert bench.observer.retries == []
        assert not bench.task.done()


@in_virtual_time
async def test_an_abandoned_burial_touches_nothing_of_the_next_generation() -> None:
    async with Bench(FakeLane(_refuses_bad), NO_LINGER) as bench:
        release = asyncio.Event()
        sends: list[list[int]] = []
        under_way = 0
        keep = bench.letters.send

        async def stubborn(letters) -> None:
            nonlocal under_way
            sends.append([letter.offset for letter in letters])
            if len(sends) == 1:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await release.wait()
                    return
            under_way += 1
            assert under_way == 1, "two sends at once"
            try:
                await passes(0.5)
                await keep(letters)
            finally:
                under_way -= 1

        bench.letters.send = stubborn  # type: ignore[method-assign]
        bench.admit("bad", 1)
        await wait_until(lambda: sends == [[0]])
        bench.pipeline.abandon()
        bench.generation = 2
        bench.letters.is_down = True
        bench.admit("bad", 1, offset=0)
        bench.admit("x", "!")
        await wait_until(lambda: len(sends) > 1)
        release.set()
        for number in range(30):
            bench.admit(f"{number}", "!")
            await passes(1)
        assert bench.acked() == []
        assert not bench.task.done()

        bench.letters.is_down = False
        await wait_until(lambda: bench.acked() == list(range(32)))
        assert sorted(letter.offset for letter in bench.letters.letters) == list(range(32))


@in_virtual_time
async def test_a_checkpoint_that_ends_after_the_abandon_acknowledges_nothing() -> None:
    checkpoints = FakeCheckpoints()
    checkpoints.gate.clear()
    async with Bench(FakeLane(), checkpoints=checkpoints) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: checkpoints.calls == 1)
        bench.pipeline.abandon()
        bench.generation = 2
        bench.admit("a", 1, offset=0)
        checkpoints.gate.set()
        await wait_until(lambda: bench.acked() == [0])
        await passes(5)
        assert bench.acked() == [0]
        assert checkpoints.calls == 2


@in_virtual_time
async def test_a_new_generation_takes_over_records_that_nobody_abandoned() -> None:
    gates = Gates()
    async with Bench(FakeLane(gates), one_at_a_time()) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: bench.lane.running == 1)
        bench.generation = 2
        bench.admit("a", 1, offset=0)
        assert bench.pipeline.open_records == 1
        gates.gate("a").set()
        await wait_until(lambda: bench.acked() == [0])
        await passes(5)
        assert bench.acked() == [0]
        assert bench.pipeline.open_records == 0


@in_virtual_time
async def test_a_drain_is_stuck_when_only_a_dependency_or_a_time_can_help() -> None:
    outage = Outage()
    outage.is_on = True
    async with Bench(FakeLane(outage), NO_LINGER) as bench:
        assert bench.pipeline.is_stuck, "nothing is open"
        bench.admit("a", 1)
        assert not bench.pipeline.is_stuck
        await wait_until(lambda: bench.lane.running == 1, interval=0.001)
        assert not bench.pipeline.is_stuck
        await wait_until(lambda: bench.lane.running == 0)
        assert bench.pipeline.is_stuck


# ---- standing aside ----------------------------------------------------------------------


@in_virtual_time
async def test_handlers_that_stand_aside_leave_their_places_to_others() -> None:
    aside, waiting = StandingAside(), asyncio.Event()

    async def stand(batch: Sequence[Change]) -> Sequence[Result]:
        with aside.aside() if batch[0].key.id in "abc" else nullcontext():
            await waiting.wait()
        return [DONE] * len(batch)

    async with Bench(FakeLane(stand), one_at_a_time(1), aside=aside) as bench:
        for id_ in "abcdefg":
            bench.admit(id_, 1)
        await passes(60)

        # Three aside, and one more that counts as working.
        assert bench.lane.running == 4
        waiting.set()
        await wait_until(lambda: bench.acked() == list(range(7)))


@in_virtual_time
async def test_after_an_outage_a_single_probe_goes_out_though_it_stands_aside() -> None:
    aside, waiting = StandingAside(), asyncio.Event()
    attempts: list[Change] = []

    async def stand(batch: Sequence[Change]) -> Sequence[Result]:
        attempts.extend(batch)
        if len(attempts) == 1:
            raise Transient("vllm", "connection refused")
        with aside.aside():
            await waiting.wait()
        return [Settled(Outcome.WRITTEN, called=("vllm",))] * len(batch)

    async with Bench(FakeLane(stand), one_at_a_time(), aside=aside) as bench:
        for id_ in "abc":
            bench.admit(id_, 1)
        await passes(60)

        assert bench.lane.running == 1
        waiting.set()
        await wait_until(lambda: bench.acked() == [0, 1, 2])


# ---- admission ---------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_refused_waits_as_a_record_and_goes_on_when_admitted() -> None:
    admission = FakeAdmission()
    admission.why_not = "3 requests wait at the server"
    async with Bench(FakeLane(), one_at_a_time(), admission=admission) as bench:
        for id_ in "abcd":
            bench.admit(id_, 1)
        await passes(3_600)

        assert bench.lane.batches == []
        assert bench.pipeline.waits == {"admission": "3 requests wait at the server"}
        assert not bench.pipeline.holds
        assert not bench.pipeline.circuits.open_circuits()

        admission.why_not = ""
        await wait_until(lambda: bench.acked() == [0, 1, 2, 3])
        assert bench.pipeline.waits == {}
        assert (admission.started, admission.inside) == (4, 0)


@in_virtual_time
async def test_a_drain_need_not_wait_for_what_is_refused() -> None:
    admission = FakeAdmission()
    admission.why_not = "busy"
    async with Bench(FakeLane(), one_at_a_time(), admission=admission) as bench:
        bench.admit("a", 1)
        await passes(1)
        assert not bench.pipeline.is_stuck

        bench.pipeline.start_drain()

        assert bench.pipeline.is_stuck


@in_virtual_time
async def test_a_batch_leaves_however_it_ends() -> None:
    admission, outage = FakeAdmission(), Outage()
    outage.is_on = True
    async with Bench(FakeLane(outage), one_at_a_time(), admission=admission) as bench:
        bench.admit("a", 1)
        await wait_until(lambda: len(outage.attempts) == 2)
        await wait_until(lambda: admission.inside == 0)
        bench.pipeline.abandon()

        gates = Gates()
        bench.lane.behaviour, bench.generation = gates, 2
        bench.admit("b", 1)
        await wait_until(lambda: admission.inside == 1)
        bench.pipeline.abandon()
        await wait_until(lambda: admission.inside == 0)

    assert admission.started == 3


# ---- bugs --------------------------------------------------------------------------------


async def _buggy(batch: Sequence[Change]) -> Sequence[Result]:
    raise ValueError("a bug")


async def _too_few(batch: Sequence[Change]) -> Sequence[Result]:
    return [DONE] * (len(batch) - 1)


async def _cancels_itself(batch: Sequence[Change]) -> Sequence[Result]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future
    return [DONE] * len(batch)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [(_buggy, ValueError), (_too_few, ValueError), (_cancels_itself, CancelledFromInside)],
)
@in_virtual_time
async def test_a_bug_in_a_handler_ends_the_run_and_acknowledges_nothing(behaviour, error) -> None:
    async with Bench(FakeLane(behaviour), NO_LINGER) as bench:
        bench.admit("a", 1)
        with pytest.raises(BaseExceptionGroup) as raised:
            await asyncio.wait_for(asyncio.shield(bench.task), 5)

    assert raised.group_contains(error)
    assert bench.acks.count == 0


@in_virtual_time
async def test_an_error_in_decoding_that_is_not_permanent_escapes_to_the_pump() -> None:
    async with Bench(FakeLane(), NO_LINGER) as bench:
        with pytest.raises(ValueError, match="invalid literal"):
            bench.admit("a", "no number")


# ---- everything at once ------------------------------------------------------------------


class Chaos:
    """Random answers: successes, transient failures of some or all, refusals, slow handlers."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ended: dict[str, list[int]] = {}
        self.calm = False

    async def __call__(self, batch: Sequence[Change]) -> Sequence[Result]:
        dice = self.dice
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.05, 1.0]))
        if not self.calm and dice.random() < 0.1:
            raise Transient("redis", "all gone")
        results = [self.answer(change) for change in batch]
        await asyncio.sleep(0)
        return results

    def answer(self, change: Change) -> Result:
        roll = 1.0 if self.calm else self.dice.random()
        if roll < 0.05:
            return Transient("vllm", "no", retry_after_seconds=self.dice.choice([None, 0.5]))
        self.ended.setdefault(change.id, []).append(change.version)
        return Permanent(Reason.REFUSED, "no") if roll < 0.1 else DONE


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("seed", range(6))
@in_virtual_time
async def test_whatever_fails_every_offset_is_acknowledged_once_and_the_last_version_handled(
    seed: int, checkpointed: bool
) -> None:
    dice = random.Random(seed)
    chaos = Chaos(dice)
    checkpoints = FakeCheckpoints() if checkpointed else None
    limits = LaneLimits(
        max_records=60,
        max_batch=dice.choice([1, 7, 64]),
        max_batches_in_flight=dice.choice([1, 3]),
        linger_seconds=dice.choice([0, 0.005]),
    )
    bench = Bench(FakeLane(chaos), limits, checkpoints=checkpoints)
    clock = LoopClock()
    log: dict[int, list[tuple[str, str]]] = {0: [], 1: [], 2: []}
    versions: dict[str, int] = {}
    async with bench, asyncio.TaskGroup() as group:
        weather = group.create_task(_weather(dice, bench))
        for number in range(600):
            partition = dice.randrange(3)
            id_ = f"{partition}-{dice.randrange(12)}"
            value = "!" if dice.random() < 0.05 else f"{number}"
            if value != "!":
                versions[id_] = number
                value += f"@{clock.now_ms() + 300}" if dice.random() < 0.05 else ""
            log[partition].append((id_, value))
            bench.admit(id_, value, partition=partition)
            await bench.pipeline.room()
            if dice.random() < 0.3:
                await asyncio.sleep(dice.choice([0, 0, 0.01]))
            if dice.random() < 0.01:
                _rebalance(bench, log)
        chaos.calm = True
        weather.cancel()
        bench.letters.is_down = False
        if checkpoints is not None:
            checkpoints.is_down = False
        await wait_until(lambda: not bench.pipeline.open_records, interval=0.5)

    for partition, records in log.items():
        assert bench.acked(partition) == list(range(len(records)))
    for id_, version in versions.items():
        assert max(chaos.ended[id_]) == version
    invalid = {
        (partition, offset)
        for partition, records in log.items()
        for offset, (_, value) in enumerate(records)
        if value == "!"
    }
    buried = {(letter.partition, letter.offset) for letter in bench.letters.letters}
    assert invalid <= buried


async def _weather(dice: random.Random, bench: Bench) -> None:
    while True:
        await asyncio.sleep(dice.expovariate(1 / 3))
        bench.letters.is_down = dice.random() < 0.5
        if bench.checkpoints is not None:
            bench.checkpoints.is_down = dice.random() < 0.5


def _rebalance(bench: Bench, log: dict[int, list[tuple[str, str]]]) -> None:
    """Abandon what is open and deliver it again in the next generation, as Kafka would."""
    bench.pipeline.abandon()
    bench.lane.forget_running()
    bench.generation += 1
    for partition, records in log.items():
        for offset in range(len(bench.acked(partition)), len(records)):
            id_, value = records[offset]
            bench.admit(id_, value, partition=partition, offset=offset)


def test_invalid_input_counts_as_permanent() -> None:
    assert issubclass(InvalidInput, Permanent)
