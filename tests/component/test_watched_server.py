"""The knowledge lanes in their engine, with the writer and the watch that LaneMaker gives them.

A server on the loopback is busy, exchanged or half gone; nothing here is a Kafka or a Redis.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.topics import Topic
from streams.clock import SystemClock
from streams.engine.circuits import RetrySchedule
from streams.engine.pipeline import FailurePolicy, Pipeline
from streams.lane_making import LaneMaker, MadeLane, Shared
from streams.metrics import LaneMetrics
from streams.settings import Settings
from tests.fakes.emitter import FakeEmitter
from tests.fakes.engine import FakeAcknowledger, FakeDeadLetters, RecordingObserver
from tests.fakes.stores import InMemoryEntityStore
from tests.fakes.vllm_server import Behaviour, FakeVllmServer
from tests.lane_builders import record, request
from tests.stack import wait_until
from workers.live.connection import connect
from workers.live.keys import Keys

GROUP = "group"
IN_FLIGHT = 8


@pytest.fixture
async def server() -> AsyncIterator[FakeVllmServer]:
    async with FakeVllmServer() as running:
        yield running


def make(name: str, server: FakeVllmServer, **knowledge: Any) -> tuple[MadeLane, FakeEmitter]:
    """A lane as the composition root makes it."""
    wishes = {
        "writer": "vllm",
        "model": "a-model",
        "vllm_url": server.url,
        "in_flight": IN_FLIGHT,
        "backlog_look_seconds": 0.01,
        "overload_seconds": 1e12,  # the requests are as old as the epoch
    }
    emitter: Any = FakeEmitter()
    keys = Keys("test")
    redis = connect("redis://127.0.0.1:1")
    shared = Shared(
        settings=Settings(knowledge=wishes | knowledge),
        metrics=LaneMetrics(name),
        clock=SystemClock(),
        keys=keys,
        redis=redis,
        probe=redis,
        emitter=emitter,
        group=GROUP,
    )
    made = LaneMaker(name, shared).make()
    lane: Any = made.lane
    lane._documents = InMemoryEntityStore()
    return made, emitter


class Running:
    """A lane in its engine; `ask` gives it requests."""

    def __init__(self, made: MadeLane, emitter: FakeEmitter) -> None:
        self.emitter = emitter
        self.acks = FakeAcknowledger()
        self.letters = FakeDeadLetters()
        self.asked = 0
        self.pipeline: Pipeline[Any, Any] = Pipeline(
            made.lane,
            made.limits,
            FailurePolicy(RetrySchedule(0.01, 0.05)),
            group=GROUP,
            acknowledger=self.acks,
            dead_letters=self.letters,
            observer=RecordingObserver(),
            clock=SystemClock(),
            admission=made.admission,
        )

    def ask(self, count: int) -> None:
        for _ in range(count):
            self.ask_about(str(self.asked + 1))

    def ask_about(self, id_: str) -> None:
        self.asked += 1
        wish = request(1, id_=id_)
        got = record(
            Topic.KNOWLEDGE_BACKLOG, wish.entity.encode(), wish.encode(), offset=self.asked
        )
        self.pipeline.admit(got, (0, self.asked), generation=1)

    async def all_done(self) -> None:
        await wait_until(lambda: self.acks.count == self.asked)
        assert len(self.emitter.updates) == self.asked
        assert self.letters.letters == []

    @property
    def trouble(self) -> str:
        return self.pipeline.circuits.open_circuits().get("vllm", "")


@contextlib.asynccontextmanager
async def running(name: str, server: FakeVllmServer, **knowledge: Any) -> AsyncIterator[Running]:
    made, emitter = make(name, server, **knowledge)
    lane = Running(made, emitter)
    tasks = [
        asyncio.ensure_future(one)
        for one in (lane.pipeline.run(), *(beside() for beside in made.beside))
    ]
    try:
        yield lane
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for closed in made.closed:
            await closed()
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def test_the_backlog_waits_while_the_server_has_requests_waiting_and_goes_on_after(server):
    server.running, server.waiting = 4, 2
    async with running("knowledge-backlog", server) as lane:
        lane.ask(20)
        looks = server.looks
        await wait_until(lambda: server.looks > looks + 5)

        assert server.requests == []
        assert lane.pipeline.waits == {"admission": "2 requests wait at the server"}
        assert not lane.pipeline.is_handling, "a stop has nothing to wait for"

        server.running = server.waiting = 0
        await lane.all_done()

    assert len(server.requests) == 20


async def test_when_others_come_calls_of_the_backlog_end_and_go_back_to_its_tail(server):
    server.default = Behaviour.HANG
    async with running("knowledge-backlog", server, backlog_beside=0) as lane:
        lane.ask(4)
        await wait_until(lambda: len(server.requests) == 4)

        server.running = 5
        await wait_until(lambda: lane.acks.count == 4)
        assert len(lane.emitter.on(Topic.KNOWLEDGE_BACKLOG)) == 4
        assert lane.trouble == ""
        assert lane.letters.letters == []

        server.running = 0
        await wait_until(lambda: not lane.pipeline.waits)
        lane.ask_about("4")
        await wait_until(lambda: len(server.requests) == 5)
        server.running, looks = 2, server.looks
        await wait_until(lambda: server.looks > looks + 3)

        assert len(lane.emitter.on(Topic.KNOWLEDGE_BACKLOG)) == 4, "it went before"


async def test_new_items_are_asked_about_however_busy_the_server_is(server):
    server.running, server.waiting = 4, 2
    async with running("knowledge", server) as lane:
        lane.ask(20)
        await lane.all_done()

    assert server.looks == 0


async def test_the_backlog_goes_on_when_the_metrics_page_is_gone(server):
    server.waiting = 2
    async with running("knowledge-backlog", server) as lane:
        lane.ask(20)
        looks = server.looks
        await wait_until(lambda: server.looks > looks + 2)
        server.has_metrics = False
        await lane.all_done()


@pytest.mark.parametrize("name", ["knowledge", "knowledge-backlog"])
async def test_another_model_opens_the_circuit_in_plain_words_until_the_right_one_is_back(
    server, name
):
    server.models = ["another-model"]
    async with running(name, server) as lane:
        lane.ask(20)
        await wait_until(lambda: lane.trouble == "serves another-model, declared is a-model")
        assert server.requests == []
        assert lane.emitter.sent == []

        server.models = ["a-model"]
        await lane.all_done()
        assert lane.trouble == ""


async def test_a_backlog_whose_server_is_gone_says_so_and_goes_on_when_it_is_back():
    first = FakeVllmServer()
    async with first:
        port = int(first.url.rpartition(":")[2])
    async with running("knowledge-backlog", first) as lane:
        lane.ask(20)
        await wait_until(lambda: "ConnectError" in lane.trouble)
        async with FakeVllmServer(port=port):
            await lane.all_done()


async def test_recorded_answers_need_no_admission(server, tmp_path):
    recorded = tmp_path / "answers.jsonl"
    recorded.write_text("")

    made, _ = make("knowledge-backlog", server, writer="recorded", recorded_file=recorded)

    assert (made.admission, made.beside) == (None, [])
