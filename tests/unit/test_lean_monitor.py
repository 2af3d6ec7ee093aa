"""The lean monitor: keeps the one thing that Faust's consumer asks of it."""

import time
from typing import Any

import faust
from faust.types import TP

from streams.faust_runtime.lean_monitor import LeanMonitor

_PARTITION = TP("catalog.items", 0)
_ANY: Any = object()


def test_notes_when_a_partition_moved_last() -> None:
    monitor = LeanMonitor()
    before = time.monotonic()

    monitor.on_stream_event_in(_PARTITION, 7, _ANY, _ANY)

    assert before <= monitor.stream_inbound_time[_PARTITION] <= time.monotonic()
    monitor.on_stream_event_out(_PARTITION, 7, _ANY, _ANY, None)  # takes what it was not given


def test_keeps_nothing_of_a_record() -> None:
    monitor = LeanMonitor()

    monitor.on_message_in(_PARTITION, 7, _ANY)
    monitor.on_stream_event_in(_PARTITION, 7, _ANY, _ANY)

    assert not monitor.messages_received_by_topic
    assert not monitor.events_by_stream
    assert not monitor.tp_read_offsets


def test_faust_still_calls_the_two_methods_it_makes_cheap() -> None:
    """Else the lane would pay for every record again, and nobody would notice."""
    app = faust.App("lean", monitor=LeanMonitor(), store="memory://")

    assert isinstance(app.monitor, LeanMonitor)
    for name in ("on_message_in", "on_stream_event_in"):
        assert getattr(LeanMonitor, name) is not getattr(faust.Monitor, name)
        assert hasattr(app.sensors, name)
