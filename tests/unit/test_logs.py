import io
import json
import logging

import pytest
import structlog

from streams.logs import RateLimit, configure
from tests.cli_runner import logging_restored
from tests.fakes.clock import FakeClock


@pytest.fixture
def lines():
    """Logging set up on a buffer; returns what was logged, as objects."""
    stream = io.StringIO()
    with logging_restored():
        configure("info", "json", stream=stream)
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_are_json_lines_with_bound_context(lines) -> None:
    log = structlog.get_logger("freshet.lane").bind(lane="items")

    log.info("batch_completed", records=3)

    (line,) = lines()
    assert {name: line[name] for name in ("event", "lane", "records", "level")} == {
        "event": "batch_completed",
        "lane": "items",
        "records": 3,
        "level": "info",
    }
    assert line["timestamp"].endswith("Z")


def test_an_exception_is_one_line_with_its_traceback(lines) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger("freshet.lane").exception("crashed")

    (line,) = lines()
    assert line["event"] == "crashed"
    assert "ValueError: bad" in line["exception"]


def test_client_libraries_are_heard_from_warning_on_and_in_the_same_form(lines) -> None:
    logging.getLogger("aiokafka.conn").info("connecting")
    logging.getLogger("aiokafka.conn").error("broker %s is gone", 1)

    (line,) = lines()
    assert (line["event"], line["logger"]) == ("broker 1 is gone", "aiokafka.conn")


def test_a_repeated_message_of_a_library_is_held_back_and_counted() -> None:
    clock = FakeClock()
    limit = RateLimit(window_seconds=30, each_window=2, clock=clock.monotonic)

    def passes(name: str = "aiokafka.conn", message: str = "node %s") -> logging.LogRecord | None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, message, (1,), None)
        return record if limit.filter(record) else None

    assert [passes() is not None for _ in range(5)] == [True, True, False, False, False]
    assert passes(message="another") is not None
    assert all(passes(name="freshet.lane") is not None for _ in range(5))

    clock.advance(31)
    again = passes()

    assert again is not None
    assert vars(again)["held_back"] == 3
