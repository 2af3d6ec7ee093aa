"""Items that wait for one another, in any order of coming, going and failing."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Transient
from schemas.knowledge import Factors, Provenance
from schemas.reasons import Rejection
from streams.engine.standing_aside import StandingAside
from streams.lanes.call_places import CallPlaces
from streams.lanes.shared_answers import Share, SharedAnswers
from streams.settings import KnowledgeSettings
from tests.fakes.virtual_time import in_virtual_time, run_virtually
from tests.lane_builders import request
from tests.overload_builders import Budget
from workers.knowledge.writer import Rejected

CALL_SECONDS = 5.0
PLACES, MEMBERS = 2, 3
NONE_TOO_MANY = 0.01


class Scribe:
    """An Author of shared answers; every call takes CALL_SECONDS and goes as `fates` say."""

    def __init__(self, fates: list[str] | None = None) -> None:
        self.places = CallPlaces(PLACES)
        self.answers = 0
        self.calls: list[list[str]] = []
        self.fates = iter(fates or ())
        self._open: set[str] = set()

    async def share(self, group, requests, gate):
        ids = [one.entity.id for one in requests]
        assert 0 < len(ids) <= MEMBERS
        assert not self._open.intersection(ids), "in two calls at a time"
        assert {id_[0] for id_ in ids} == {group.id}
        self._open.update(ids)
        self.calls.append(ids)
        try:
            await asyncio.sleep(CALL_SECONDS)
        finally:
            self._open.difference_update(ids)
        match next(self.fates, "answer"):
            case "fail":
                raise Transient("vllm", "HTTP 500")
            case "refuse":
                raise Rejected(Rejection.TRUNCATED, "scripted")
        self.answers += 1
        return [_told(one) for one in requests]


def _told(request) -> Factors:
    return Factors(1, 0, {"mood": request.entity.id}, Provenance("m", "p", "f"), 0)


class World:
    def __init__(self, fates: list[str] | None = None, *, share_seconds: float = 1.0) -> None:
        self.author = Scribe(fates)
        self.aside = StandingAside()
        self.shared = SharedAnswers(
            author=self.author,  # type: ignore[arg-type]
            gate=None,  # type: ignore[arg-type]
            budget=Budget(),
            settings=KnowledgeSettings(share_seconds=share_seconds, share_members=MEMBERS),
            aside=self.aside,
        )

    async def of(self, id_: str, *, seconds: float = 1e6) -> Share:
        """Ask for an item whose id begins with its group."""
        group = EntityKey(EntityKind.GROUP, id_[0])
        return await self.shared.of(request(1, id_=id_), group, seconds=seconds)

    async def assert_idle(self) -> None:
        """Assert that whoever comes next finds all places free, and nobody to wait for."""
        assert self.aside.freed == 0
        async with AsyncExitStack() as stack:
            for _ in range(PLACES):
                await stack.enter_async_context(
                    self.author.places.place(lambda: (0, 0), seconds=NONE_TOO_MANY)
                )
        self.author.fates = iter(())
        assert (await self.of("zz", seconds=2)).factors is not None


async def _seconds(call) -> tuple[Share | BaseException, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        return await call, loop.time() - began
    except (Transient, asyncio.CancelledError) as error:
        return error, loop.time() - began


@in_virtual_time
async def test_whoever_is_late_goes_at_its_time_and_who_is_asked_about_stays() -> None:
    world = World()
    async with asyncio.TaskGroup() as group:
        # Two groups hold both places from the first second on; c comes to none.
        asked = [group.create_task(_seconds(world.of(id_, seconds=2))) for id_ in ("a1", "b1")]
        await asyncio.sleep(0.1)
        late = [group.create_task(_seconds(world.of(id_, seconds=3))) for id_ in ("c1", "c2")]

    for task in asked:
        share, seconds = task.result()
        assert isinstance(share, Share)
        assert share.factors is not None
        assert seconds == pytest.approx(1 + CALL_SECONDS)
    for task in late:
        share, seconds = task.result()
        assert isinstance(share, Share)
        assert (share.factors, share.late, share.asked) == (None, True, False)
        assert seconds == pytest.approx(3)
    await world.assert_idle()


@in_virtual_time
async def test_calls_are_as_full_as_those_who_wait_allow() -> None:
    world = World()
    ids = [f"{group}{number}" for number in range(7) for group in "abcd"]

    async with asyncio.TaskGroup() as group:
        for id_ in ids:
            group.create_task(world.of(id_))

    # Of four groups of seven: two full calls each, and one about whoever is left.
    assert sorted(map(len, world.author.calls)) == [1] * 4 + [3] * 8
    assert [len(call) for call in world.author.calls[:8]] == [3] * 8, "full ones come first"
    await world.assert_idle()


ARRIVALS = st.tuples(
    st.floats(0, 6),  # seconds after the one before
    st.sampled_from("aab"),
    st.floats(0, 20),  # its patience
    st.none() | st.floats(0, 20),  # when its handler is cancelled
)
FATES = st.lists(st.sampled_from(["answer", "answer", "fail", "refuse"]), max_size=10)


@given(arrivals=st.lists(ARRIVALS, max_size=25), fates=FATES, share_seconds=st.sampled_from([0, 1]))
def test_everybody_gets_an_end_in_time_whoever_comes_goes_and_fails(arrivals, fates, share_seconds):
    async def run() -> None:
        world = World(fates, share_seconds=share_seconds)
        loop = asyncio.get_running_loop()
        tasks = []
        for number, (delay, group, patience, cancelled_after) in enumerate(arrivals):
            await asyncio.sleep(delay)
            task = asyncio.create_task(_seconds(world.of(f"{group}{number}", seconds=patience)))
            tasks.append((task, patience, f"{group}{number}"))
            if cancelled_after is not None:
                loop.call_later(cancelled_after, task.cancel)
        for task, patience, id_ in tasks:
            found, seconds = await task
            assert seconds <= patience + CALL_SECONDS + NONE_TOO_MANY
            if isinstance(found, Share) and found.factors is not None:
                assert found.factors.factors == {"mood": id_}, "its own part"
            if isinstance(found, Share) and found.late:
                assert seconds >= patience - NONE_TOO_MANY
        await world.assert_idle()

    run_virtually(run())
