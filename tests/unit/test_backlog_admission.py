"""When the backlog may ask: decided by the server's figures alone."""

import asyncio

import pytest

from schemas.errors import Transient
from streams.backlog_admission import BLIND_AFTER, LOOK_SECONDS, BacklogAdmission
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
    return BacklogAdmission(pages, in_flight=8, every_seconds=0.25)


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
    admission = BacklogAdmission(pages, in_flight=8, every_seconds=0.25)
    pages.hangs = True
    watching = asyncio.create_task(admission.watch())
    await asyncio.sleep(BLIND_AFTER * (LOOK_SECONDS + 0.25))
    assert admission.refusal() == ""

    pages.hangs, pages.busy = False, (4, 1)
    await asyncio.sleep(LOOK_SECONDS + 0.5)
    assert admission.refusal() == "1 requests wait at the server"
    watching.cancel()
