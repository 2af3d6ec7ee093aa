"""What commands share: consoles, JSON lines, exit codes, durations and the settings."""

import re
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console

from schemas.errors import InvalidInput
from schemas.reasons import Reason

if TYPE_CHECKING:
    from streams.settings import Settings

FAILED = 1
MISUSED = 2

_PIPE_WIDTH = 1_000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def stdout() -> Console:
    """Return the console for results (made on use: tests and pipes replace sys.stdout)."""
    # A pipe has no width: tables keep theirs, so that a program sees one record a line.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def stderr() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Print one line of JSON."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode())


def fail(message: str) -> None:
    """Print one clear line on stderr."""
    typer.echo(f"freshet: {message}", err=True)


def exit_with(code: int) -> NoReturn:
    """Leave the command with an exit code."""
    raise typer.Exit(code)


def load_settings() -> "Settings":
    """Return the settings of the environment; raises ConfigurationError."""
    from streams.settings import Settings

    return Settings.load()


def seconds_of(duration: str) -> float:
    """Return the seconds in "90s", "15m", "12h" or "30d"; raises InvalidInput."""
    matched = _DURATION.fullmatch(duration.strip())
    if matched is None:
        raise InvalidInput(Reason.WRONG_TYPE, f"{duration!r} is no duration like 90s, 12h or 30d")
    return float(matched[1]) * _SECONDS[matched[2]]


def spelled(seconds: float | None) -> str:
    """Return a duration as people read it: "0.4 s", "12 min", "3.2 d"; "?" when unknown."""
    if seconds is None:
        return "?"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def moment(at_ms: int) -> str:
    """Return a time in ms since the epoch as ISO 8601 in UTC; as it is when out of range."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(at_ms)
