"""Runs `freshet` in this process, as a user would see it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import structlog

from streams.cli.main import main
from streams.logs import THIRD_PARTIES


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


@contextmanager
def logging_restored() -> Iterator[None]:
    """A command sets up logging for its process, which here is everybody's."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in THIRD_PARTIES)]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
        structlog.reset_defaults()


def run_freshet(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    capsys.readouterr()
    with logging_restored(), pytest.raises(SystemExit) as left:
        main(list(arguments))
    captured = capsys.readouterr()
    code = left.value.code
    return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)
