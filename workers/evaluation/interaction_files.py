"""Files of interactions: who had to do with which item, how much it was liked, and when.

CSV with a header, or JSONL; either may be gzipped (`.gz`). Columns `user_id` and `item_id`, and
where known `rating` (or `value`) and `timestamp` (seconds since the epoch) or `at_ms`. Others are
left alone.
"""

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from schemas.errors import ConfigurationError

Ids: TypeAlias = npt.NDArray[np.str_]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

NO_TIME = -1
"""`at_ms` of an interaction without a time."""

_SETTING = "interactions"
_NEEDED = ("user_id", "item_id")
_VALUES = ("rating", "value")
_MS_PER_SECOND = 1_000
_Row: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Columns of one length in the order of the file.

    `user` and `item` are ids (str), `value` float64 (nan where there is none), `at_ms` int64
    (NO_TIME where there is none).
    """

    user: Ids
    item: Ids
    value: Floats
    at_ms: Ints

    def __post_init__(self) -> None:
        lengths = {len(self.user), len(self.item), len(self.value), len(self.at_ms)}
        if len(lengths) != 1:
            raise ValueError(f"columns of {sorted(lengths)} rows")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time."""
        return len(self) > 0 and bool((self.at_ms != NO_TIME).all())

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Self:
        """Return the interactions of these rows, a mask or indices."""
        return type(self)(self.user[rows], self.item[rows], self.value[rows], self.at_ms[rows])


def read_interactions(path: Path) -> Interactions:
    """Return the interactions of a file; raises ConfigurationError naming the line."""
    read = _json_rows if _form(path) == "jsonl" else _csv_rows
    users: list[str] = []
    items: list[str] = []
    values: list[float] = []
    times: list[int] = []
    try:
        with _opened(path) as file:
            for number, row in read(file):
                try:
                    users.append(_id(row, "user_id"))
                    items.append(_id(row, "item_id"))
                    values.append(_value(row))
                    times.append(_at_ms(row))
                except ValueError as error:
                    raise ConfigurationError(_SETTING, f"{path}: line {number}: {error}") from error
    except (OSError, EOFError) as error:
        raise ConfigurationError(_SETTING, f"{path}: {error}") from error
    except ValueError as error:  # not UTF-8, not CSV with these columns
        raise ConfigurationError(_SETTING, f"{path}: {error}") from error
    return Interactions(
        np.array(users, np.str_),
        np.array(items, np.str_),
        np.array(values, np.float64),
        np.array(times, np.int64),
    )


def _form(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    form = suffixes[-1][1:] if suffixes else ""
    if form not in ("csv", "jsonl"):
        raise ConfigurationError(_SETTING, f"{path}: neither .csv nor .jsonl (may end in .gz)")
    return form


def _opened(path: Path) -> io.TextIOBase:
    if path.suffix.lower() == ".gz":
        # newline="": the csv module has rules of its own.
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _csv_rows(file: io.TextIOBase) -> Iterator[tuple[int, _Row]]:
    reader = csv.DictReader(file, restval="")
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"the header has no {' and no '.join(missing)}")
    try:
        for row in reader:
            yield reader.line_num, {name: text for name, text in row.items() if text != ""}
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _json_rows(file: io.TextIOBase) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error}") from error
        yield number, row if isinstance(row, dict) else {}


def _id(row: _Row, name: str) -> str:
    found = row.get(name)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ValueError(f"{name} is {found!r}")
    return str(found)


def _value(row: _Row) -> float:
    return _number(row, next((name for name in _VALUES if row.get(name) is not None), _VALUES[0]))


def _at_ms(row: _Row) -> int:
    in_ms = row.get("at_ms") is not None
    at = _number(row, "at_ms" if in_ms else "timestamp")
    if np.isnan(at):
        return NO_TIME
    at_ms = round(at if in_ms else at * _MS_PER_SECOND)
    if at_ms < 0:
        raise ValueError(f"{'at_ms' if in_ms else 'timestamp'} is below 0: {at}")
    return at_ms


def _number(row: _Row, name: str) -> float:
    found = row.get(name)
    if found is None:
        return float("nan")
    try:
        number = float(found) if isinstance(found, str | int | float) else np.nan
    except ValueError:
        number = np.nan
    if isinstance(found, bool) or not np.isfinite(number):
        raise ValueError(f"{name} is {found!r}")
    return number


def histories_of(interactions: Interactions) -> dict[str, tuple[str, ...]]:
    """Return the distinct items of each user, in the order of the file."""
    found: dict[str, dict[str, None]] = {}
    for user, item in zip(interactions.user.tolist(), interactions.item.tolist(), strict=True):
        found.setdefault(user, {})[item] = None
    return {user: tuple(items) for user, items in found.items()}
