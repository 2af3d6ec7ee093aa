"""Breaks loudly when Faust changes under us. No broker is needed.

A failed hash means: read the new source, rerun the fault tests on a real broker, then pin it anew.
"""

import asyncio
import hashlib
import importlib.metadata
import inspect
import sys
import textwrap
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.app import base as app_base
from faust.tables.recovery import Recovery
from faust.transport import base as transport_base
from faust.transport import conductor, consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.services import Service

from streams.engine.lane import Record
from streams.faust_runtime import fast_transport
from streams.faust_runtime.bridge import FaustBridge, to_record
from streams.faust_runtime.fast_transport import FastConsumer, FastTransport

READ_AND_TESTED = {
    # The inlined drain replaces or relies on these.
    consumer.Consumer._drain_messages: "8f35dd7a11144daa",
    consumer.Consumer._wait_next_records: "ba40cd3671328d3b",
    consumer.Consumer.getmany: "e486c434b7928ee8",
    consumer.Consumer.stop_flow: "aa77389dc23a1981",
    consumer.Consumer.resume_flow: "192f20bc377f5fec",
    consumer.Consumer.on_buffer_full: "edcee17978c41d8d",
    consumer.Consumer.on_buffer_drop: "c5f80b096c715169",
    consumer.Fetcher._fetcher.fun: "64ea6297f5a08cd9",
    conductor.Conductor._build_handler: "0594d4a1e38c6dfd",
    conductor.Conductor._compile_message_handler: "86322d3c79430290",
    Service.wait_first: "3ed3b8c32e14dec3",
    transport_base.Transport.create_consumer: "9eb4f22bbf3f8dc1",
    transport_base.Transport.create_conductor: "242bc75fb7029561",
    # The delivery contract relies on these.
    consumer.Consumer.ack: "5548cf0f75843f73",
    consumer.Consumer._new_offset: "2b29afe4dd9a65a3",
    consumer.Consumer.on_partitions_revoked: "652177e770ee66d6",
    consumer.Consumer.wait_empty: "53195dca246c0a86",
    faust.App._on_partitions_revoked: "c1abd58dcb37f0a2",
    # The lane's service relies on the order of these at start and stop.
    app_base.BootStrategy.server: "2281b36f989677f3",
    faust.App.on_init_dependencies: "70bd80ccc18f689c",
    faust.App.on_started: "d365049982f301a4",
    faust.App.on_stop: "d8e7904b258c93f5",
    faust.App._stop_consumer: "96573acf5f044586",
    Recovery._resume_streams: "fbe0f747b84c0b27",
    Service.stop: "c7859eae93d25dee",
}


def test_the_versions_are_the_tested_ones() -> None:
    assert sys.version_info[:2] == (3, 11)
    for name, version in fast_transport.TESTED_VERSIONS.items():
        assert importlib.metadata.version(name) == version
    assert fast_transport.can_use()


def test_the_fast_path_is_refused_on_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fast_transport.TESTED_VERSIONS, "aiokafka", "0.0.1")

    assert not fast_transport.can_use()


@pytest.mark.parametrize(
    ("function", "digest"),
    READ_AND_TESTED.items(),
    ids=[function.__qualname__ for function in READ_AND_TESTED],
)
def test_the_source_is_what_was_read_and_tested(
    function: Callable[..., object], digest: str
) -> None:
    source = textwrap.dedent(inspect.getsource(function))

    assert hashlib.sha256(source.encode()).hexdigest()[:16] == digest


def test_the_override_sees_one_call_only() -> None:
    source = inspect.getsource(consumer)

    assert source.count("self.wait_first(") == 1
    assert "callback(message), self.suspend_flow.wait()" in source
    assert "wait_first" not in inspect.getsource(driver)


def test_the_compiled_stream_iterator_is_in_use() -> None:
    """The pure-Python one acknowledges records of an older generation."""
    from faust import streams as faust_streams

    assert faust_streams._CStreamIterator is not None


# ---- the same outcome as upstream --------------------------------------------------------

Callback = Callable[[list[str]], Awaitable[None]]
Act = Callable[[driver.Consumer, "asyncio.Task[object]"], object]


async def returns(seen: list[str]) -> None:
    seen.append("done")


async def raises(seen: list[str]) -> None:
    raise KeyError("at once")


async def raises_late(seen: list[str]) -> None:
    await asyncio.sleep(0.05)
    raise KeyError("late")


async def is_slow(seen: list[str]) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    seen.append("done")


async def blocks(seen: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


def nothing(_consumer: driver.Consumer, _pump: "asyncio.Task[object]") -> None:
    """Leave it alone."""


def suspend(consumer_: driver.Consumer, _pump: "asyncio.Task[object]") -> None:
    consumer_.stop_flow()


def stop(consumer_: driver.Consumer, _pump: "asyncio.Task[object]") -> None:
    consumer_._stopped.set()


def crash(consumer_: driver.Consumer, _pump: "asyncio.Task[object]") -> None:
    consumer_._crashed.set()


def cancel(_consumer: driver.Consumer, pump: "asyncio.Task[object]") -> None:
    pump.cancel()


def make_consumer(kind: type[driver.Consumer]) -> Any:
    app: Any = faust.App(
        "guard", broker="kafka://localhost:1", store="memory://", autodiscover=False
    )
    transport = type("Transport", (driver.Transport,), {"Consumer": kind})
    app.transport = transport(app.conf.broker_consumer, app)
    return app.transport.create_consumer(
        returns, on_partitions_revoked=None, on_partitions_assigned=None
    )


async def outcome_of(
    kind: type[driver.Consumer], callback: Callback, act: Act
) -> tuple[str, list[str], int]:
    """Return what the pump sees, what the callback did, and how many tasks are left."""
    seen: list[str] = []
    made = make_consumer(kind)
    before = asyncio.all_tasks()
    pump = asyncio.ensure_future(made.wait_first(callback(seen), made.suspend_flow.wait()))
    await asyncio.sleep(0.02)
    act(made, pump)
    try:
        result = await asyncio.wait_for(asyncio.shield(pump), 1)
        says = f"stopped {result.stopped}"
    except asyncio.CancelledError:
        says = "cancelled"
    except KeyError as error:
        says = repr(error)
    await asyncio.sleep(0.02)
    return says, seen, len(asyncio.all_tasks() - before)


@pytest.mark.parametrize(
    ("callback", "act"),
    [
        (returns, nothing),
        (raises, nothing),
        (raises_late, nothing),
        (is_slow, nothing),
        (blocks, suspend),
        (blocks, stop),
        (blocks, crash),
        (blocks, cancel),
        (is_slow, suspend),
        (raises_late, suspend),
    ],
)
async def test_the_inlined_call_ends_as_upstreams_does(callback: Callback, act: Act) -> None:
    ours = await outcome_of(FastConsumer, callback, act)
    upstreams = await outcome_of(driver.Consumer, callback, act)

    assert ours == upstreams
    assert ours[2] == 0


@pytest.mark.parametrize("state", ["suspended", "stopped"])
async def test_a_consumer_that_does_not_flow_leaves_the_call_to_upstream(state: str) -> None:
    ended: list[tuple[list[str], bool]] = []
    for kind in (FastConsumer, driver.Consumer):
        made = make_consumer(kind)
        seen: list[str] = []
        if state == "suspended":
            made.stop_flow()
        else:
            made._stopped.set()
        result = await made.wait_first(blocks(seen), made.suspend_flow.wait())
        await asyncio.sleep(0)
        ended.append((seen, result.stopped))

    assert ended[0] == ended[1]


async def test_a_record_costs_no_task() -> None:
    made = make_consumer(FastConsumer)
    loop = asyncio.get_running_loop()
    tasks = 0

    def count(loop_, coroutine, **options):
        nonlocal tasks
        tasks += 1
        return asyncio.Task(coroutine, loop=loop_, **options)

    loop.set_task_factory(count)
    for _ in range(100):
        await made.wait_first(returns([]), made.suspend_flow.wait())
    loop.set_task_factory(None)

    assert tasks == 0


def drop(made: driver.Consumer, tp: TP) -> None:
    made.on_buffer_drop(tp)


def resume(made: driver.Consumer, tp: TP) -> None:
    made.resume_partitions({tp})


def halt(made: driver.Consumer, _tp: TP) -> None:
    made.stop_flow()


@pytest.mark.parametrize("wake", [drop, resume, halt])
async def test_a_paused_consumer_wakes_at_once(wake: Callable[[driver.Consumer, TP], None]) -> None:
    made = make_consumer(FastConsumer)
    assert made.app.tables is not None  # made on demand, and asked for by on_buffer_full
    tp = TP("t", 0)
    made._active_partitions = {tp}
    made.on_buffer_full(tp)
    assert not made._active_partitions
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, wake, made, tp)
    before = loop.time()

    records, active = await made._wait_next_records(1.0)

    assert loop.time() - before < 0.3
    assert records == {}
    assert active == (set() if wake is halt else {tp})


# ---- what the bridge touches -------------------------------------------------------------


@pytest.fixture
def app() -> Any:
    app = faust.App("guard", broker="kafka://localhost:1", store="memory://", autodiscover=False)
    fast_transport.install(app)
    return app


def message(offset: int, generation: int) -> Any:
    return faust.types.tuples.ConsumerMessage(
        "t",
        0,
        offset,
        1.5,
        0,
        [("h", b"\x00")],
        b"key",
        b"value",
        None,
        tp=TP("t", 0),
        generation_id=generation,
    )


async def test_installed_it_is_what_the_app_makes(app: Any) -> None:
    assert isinstance(app.transport, FastTransport)
    assert isinstance(app.consumer, FastConsumer)


async def test_the_bridge_finds_everything_it_needs(app: Any) -> None:
    made = app.consumer
    bridge = FaustBridge(app)

    assert isinstance(made.can_resume_flow, asyncio.Event)
    assert isinstance(made.suspend_flow, asyncio.Event)
    assert not bridge.is_stopping
    assert bridge.generation == 0
    assert not bridge.is_flowing
    made.resume_flow()
    await asyncio.wait_for(bridge.wait_flowing(), 1)
    assert bridge.is_flowing
    made.stop_flow()
    await asyncio.wait_for(bridge.wait_suspended(), 1)
    assert not bridge.is_flowing


async def test_acknowledged_messages_are_committed_those_of_an_older_generation_are_not(
    app: Any,
) -> None:
    made, bridge = app.consumer, FaustBridge(app)
    app.topics._acking_topics.add("t")
    app.consumer_generation_id = 4
    kept = [message(0, 4), message(1, 4)]
    stale = message(2, 3)
    for tracked in (*kept, stale):
        tracked.incref()
        made.track_message(tracked)

    bridge.acknowledge([*kept, stale])

    assert made._acked[TP("t", 0)] == [0, 1]
    assert made._new_offset(TP("t", 0)) == 2
    assert set(made.unacked) == set()


async def test_forgotten_messages_hold_no_rebalance_and_are_not_committed(app: Any) -> None:
    made, bridge = app.consumer, FaustBridge(app)
    app.topics._acking_topics.add("t")
    lost = message(0, 0)
    made.track_message(lost)

    bridge.forget([lost])

    assert set(made.unacked) == set()
    assert made._acked[TP("t", 0)] == []


async def test_committed_offsets_leave_out_what_was_never_committed(app: Any) -> None:
    made, bridge = app.consumer, FaustBridge(app)
    made._committed_offset[TP("t", 0)] = 17
    made._committed_offset[TP("t", 1)] = None
    made._committed_offset[TP("u", 0)] = 3

    assert bridge.committed_offsets({("t", 0), ("t", 1), ("t", 2)}) == {("t", 0): 17}


@pytest.mark.parametrize("headers", [(("h", b"\x00"),), [("h", b"\x00")], {"h": b"\x00"}])
def test_a_message_becomes_a_record_byte_for_byte(headers: object) -> None:
    received = message(7, 1)
    received.headers = headers

    assert to_record(received) == Record("t", 0, 7, b"key", b"value", (("h", b"\x00"),), 1_500)


def test_a_message_without_headers_key_value_or_time_is_a_record_too() -> None:
    received = SimpleNamespace(
        topic="t", partition=0, offset=0, key=None, value=None, headers=None, timestamp=None
    )

    assert to_record(received) == Record("t", 0, 0, None, None, (), 0)
