"""Logging of every process: structlog events as JSON lines or for a console, on stderr.

Third-party loggers (aiokafka, kafka, faust, mode) go the same way, but repeat themselves hundreds
of times in an outage, so each of their messages is let through a few times a window and counted.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

THIRD_PARTIES = tuple(
    "aiokafka kafka faust mode httpx httpcore asyncio sentence_transformers transformers".split()
)

_WINDOW_SECONDS = 30.0
_EACH_WINDOW = 3
_KEPT_MESSAGES = 1_000


class RateLimit(logging.Filter):
    """Lets each message through `each_window` times a window; says how many it held back.

    Messages are told apart by logger and template, so the variable part does not matter. Added to a
    handler, not to a logger, because filters of a logger do not see what its children log.
    """

    def __init__(
        self,
        names: tuple[str, ...] = THIRD_PARTIES,
        *,
        window_seconds: float = _WINDOW_SECONDS,
        each_window: int = _EACH_WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._names = names
        self._window_seconds = window_seconds
        self._each_window = each_window
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be logged."""
        if record.name.split(".", 1)[0] not in self._names:
            return True
        now = self._clock()
        key = (record.name, str(record.msg))
        start, count = self._seen.get(key, (now, 0))
        if now - start >= self._window_seconds:
            held_back = max(0, count - self._each_window)
            start, count = now, 0
            if held_back:
                record.held_back = held_back
        if len(self._seen) >= _KEPT_MESSAGES and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (start, count + 1)
        return count < self._each_window


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format_: Literal["json", "console"] = "json",
    *,
    stream: TextIO | None = None,
    rate_limit: RateLimit | None = None,
) -> None:
    """Set up logging of this process, replacing whatever was set up before."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if format_ == "json" else _unchanged,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(
            colors=(stream or sys.stderr).isatty(),
            # The default shows local variables: texts and prompts do not belong in logs.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    handler = _StderrHandler() if stream is None else logging.StreamHandler(stream)
    handler.addFilter(rate_limit or RateLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*shared, _held_back],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # They say at info what our own events say better.
    for name in THIRD_PARTIES:
        third_party = logging.getLogger(name)
        third_party.setLevel(max(logging.WARNING, root.level))
        third_party.handlers.clear()
        third_party.propagate = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def silence_third_parties() -> None:
    """Keep client libraries quiet in commands: their errors come back as one line of ours."""
    for name in THIRD_PARTIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stderr is at that moment: it may be replaced after the set-up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


def _held_back(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    held_back = getattr(event.get("_record"), "held_back", None)
    if held_back is not None:
        event["held_back"] = held_back
    return event


def _unchanged(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return event
