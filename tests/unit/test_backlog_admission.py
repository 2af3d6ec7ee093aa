"""When the backlog may ask: decided by the server's figures alone."""

import asyncio

import pytest

from schemas.errors import Transient
from streams.backlog_admission import (
    BLIND_AFTER,
    LOOK_SECONDS,
    QUIET_SECONDS,
    BacklogAdmission,
)
from streams.giving_way import GaveWay
from tests.fakes.virtual_time import in_virtual_time
from workers.knowledge.vllm_pages import ServerFigures

GONE = Transient("vllm", "/metrics: HTTP 404")


class Pages:
    """A FiguresPort: `busy` is (running, waiting); `trouble` is raised; `hangs` answers never."""

    def __init__(self) -> None:
        self.busy = (0, 0)
        self.trouble: Transient | None = None
        self.hangs = False
        self.looks = 0

    async def aclose(self) -> None:
        pass

    async def figures(self) -> ServerFigures:
        self.looks += 1
        if self.hangs:
            await asyncio.sleep(3_600)
        if self.trouble is not None:
            raise self.trouble
        return ServerFigures(*self.busy)


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def admission(pages: Pages) -> BacklogAdmission:
    return BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=100)


def enter_all(admission: BacklogAdmission, *, most: int = 100) -> int:
    """Let in as many as may; returns how many did."""
    entered = 0
    while not admission.refusal() and entered < most:
        admission.entered()
        entered += 1
    return entered


def test_nobody_enters_before_the_first_look(admission):
    assert "not read yet" in admission.refusal()


async def test_nobody_enters_while_a_request_waits_at_the_server(admission, pages):
    pages.busy = (2, 1)
    await admission.look()
    assert admission.refusal() == "1 requests wait at the server"

    pages.busy = (2, 0)
    await admission.look()
    assert admission.refusal() == ""


@pytest.mark.parametrize(("running", "enter"), [(0, 4), (1, 3), (4, 1), (9, 1)])
async def test_between_two_looks_only_the_free_places_are_taken(admission, pages, running, enter):
    pages.busy = (running, 0)
    await admission.look()

    assert enter_all(admission) == enter
    assert admission.refusal() == "all places at the server are taken"


async def test_who_leaves_makes_room_before_the_next_look(admission):
    await admission.look()
    enter_all(admission)

    admission.left()
    admission.left()

    assert enter_all(admission) == 2


async def test_who_leaves_makes_no_room_while_requests_wait(admission, pages):
    pages.busy = (4, 3)
    await admission.look()

    admission.left()

    assert enter_all(admission) == 0


@in_virtual_time
async def test_beside_others_answers_few_are_let_in_and_more_once_they_were_quiet_for_a_while():
    pages = Pages()
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=2)
    pages.busy = (1, 0)
    await admission.look()

    assert enter_all(admission) == 2
    assert admission.refusal() == "others' answers come first"

    pages.busy = (0, 0)
    await admission.look()
    assert enter_all(admission) == 0, "somebody else may ask again soon"

    await asyncio.sleep(QUIET_SECONDS)
    await admission.look()
    assert enter_all(admission) == 4


@in_virtual_time
async def test_with_no_place_beside_others_it_goes_on_one_at_a_time_between_them():
    pages = Pages()
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=0)
    pages.busy = (1, 0)
    await admission.look()
    assert enter_all(admission) == 0

    pages.busy = (0, 0)
    await admission.look()
    assert enter_all(admission) == 1

    pages.busy = (2, 0)
    await admission.look()
    admission.left()
    assert enter_all(admission) == 0


class Calls:
    """Calls that last until they are ended, in the order of their start."""

    def __init__(self, admission: BacklogAdmission) -> None:
        self._admission = admission
        self._ends: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[str]] = []

    async def start(self, count: int, *, may_stay: bool = False) -> None:
        for _ in range(count):
            end = asyncio.Event()
            self._ends.append(end)
            self._tasks.append(
                asyncio.create_task(self._admission.through(self._call(end), may_stay=may_stay))
            )
        await asyncio.sleep(0)

    async def end(self, number: int) -> str:
        self._ends[number].set()
        return await self._tasks[number]

    async def that_made_way(self) -> list[int]:
        for _ in range(3):
            await asyncio.sleep(0)
        return [
            number
            for number, task in enumerate(self._tasks)
            if task.done() and isinstance(task.exception(), GaveWay)
        ]

    async def _call(self, end: asyncio.Event) -> str:
        await end.wait()
        return "answer"


async def test_its_own_calls_are_not_others_even_one_that_ended_since_the_page_was_made(pages):
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=0)
    calls = Calls(admission)
    await admission.look()
    await calls.start(4)

    pages.busy = (4, 0)
    assert await calls.end(0) == "answer"
    await admission.look()

    assert admission.refusal() == ""
    assert await calls.that_made_way() == []


@pytest.mark.parametrize(("beside", "ended"), [(1, [1, 2, 3]), (3, [3]), (9, [])])
async def test_when_others_come_the_latest_calls_that_are_too_many_make_way(pages, beside, ended):
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=beside)
    calls = Calls(admission)
    await admission.look()
    await calls.start(4)

    pages.busy = (5, 0)
    await admission.look()

    assert await calls.that_made_way() == ended
    assert await calls.end(0) == "answer"


async def test_with_no_place_beside_others_one_call_stays_if_it_had_to_go_before(pages):
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=0)
    calls = Calls(admission)
    await admission.look()
    await calls.start(2)
    await calls.start(2, may_stay=True)

    pages.busy = (5, 0)
    await admission.look()

    assert await calls.that_made_way() == [0, 1, 3]
    assert await calls.end(2) == "answer"


async def test_a_call_that_fails_by_itself_says_so():
    admission = BacklogAdmission(Pages(), in_flight=8, every_seconds=0.25, beside=0)

    async def fail() -> None:
        raise GONE

    with pytest.raises(Transient):
        await admission.through(fail(), may_stay=False)


async def test_a_call_that_nobody_sent_away_does_not_pass_for_one_that_made_way():
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await BacklogAdmission(Pages(), in_flight=2, every_seconds=1.0, beside=0).through(
            cancelled(), may_stay=False
        )


async def test_whoever_gives_a_call_up_ends_it():
    admission = BacklogAdmission(Pages(), in_flight=8, every_seconds=0.25, beside=0)
    ended = asyncio.Event()

    async def call() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await admission.through(call(), may_stay=False)

    await asyncio.wait_for(ended.wait(), 1)


async def test_one_failed_look_changes_nothing(admission, pages):
    pages.busy = (4, 3)
    await admission.look()
    pages.trouble = GONE
    await admission.look()

    assert admission.refusal() == "3 requests wait at the server"


async def test_without_figures_everybody_enters_until_they_are_back(admission, pages):
    pages.busy = (4, 3)
    await admission.look()
    pages.trouble = GONE
    for _ in range(BLIND_AFTER):
        await admission.look()
    assert enter_all(admission) == 100

    pages.trouble = None
    await admission.look()
    assert admission.refusal() == "3 requests wait at the server"


async def test_failed_looks_count_only_in_a_row(admission, pages):
    pages.busy = (4, 3)
    for trouble in (GONE, GONE, None, GONE, GONE):
        pages.trouble = trouble
        await admission.look()

    assert enter_all(admission) == 0


@in_virtual_time
async def test_it_looks_again_and_again_and_a_look_is_bounded():
    pages = Pages()
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25, beside=2)
    pages.hangs = True
    watching = asyncio.create_task(admission.watch())
    await asyncio.sleep(BLIND_AFTER * (LOOK_SECONDS + 0.25))
    assert admission.refusal() == ""

    pages.hangs, pages.busy = False, (4, 1)
    await asyncio.sleep(LOOK_SECONDS + 0.5)
    assert admission.refusal() == "1 requests wait at the server"
    watching.cancel()
