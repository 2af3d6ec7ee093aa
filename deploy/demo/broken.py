"""Records that no producer should send and every feed has: each must become one dead letter.

Raw keys and values, because the producer SDK refuses to send them. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import orjson

from schemas.events import CE_TYPE_PREFIX, REMOVED, UPSERTED, DecodeLimits
from schemas.reasons import Reason
from schemas.topics import Topic

Headers: TypeAlias = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """What is put on a topic as it is, and the reason it must be refused for.

    `at_ms` is the moment of the season at which it comes.
    """

    topic: Topic
    at_ms: int
    key: bytes | None
    value: bytes | None
    reason: Reason
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Wire:
    """The record itself."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def broken_records(item_ids: Sequence[str], times_ms: Sequence[int]) -> list[BrokenRecord]:
    """Return a record for each time: the kinds of mistake in turn, about the items in turn."""
    return cycled(_MISTAKES, Topic.CATALOG_ITEMS, item_ids, times_ms)


def cycled(
    mistakes: Mapping[Reason, Callable[[str], Wire]],
    topic: Topic,
    ids: Sequence[str],
    times_ms: Sequence[int],
) -> list[BrokenRecord]:
    """Return a record for each time: the mistakes in turn, with the ids in turn."""
    kinds = tuple(mistakes.items())
    records = []
    for index, at_ms in enumerate(times_ms):
        reason, make = kinds[index % len(kinds)]
        wire = make(ids[index % len(ids)])
        records.append(BrokenRecord(topic, at_ms, wire.key, wire.value, reason, wire.headers))
    return records


def _event(item_id: str, **changes: object) -> bytes:
    """Return a sound event with some attributes changed; None leaves one out."""
    event: dict[str, object] = {
        "type": UPSERTED,
        "item_id": item_id,
        "version": 1_000,
        "item": {"title": "A film that must never be seen"},
        **changes,
    }
    return orjson.dumps({name: value for name, value in event.items() if value is not None})


def _key(item_id: str) -> bytes:
    return b"item:" + item_id.encode()


def _changed(**changes: object) -> Callable[[str], Wire]:
    return lambda item_id: Wire(_key(item_id), _event(item_id, **changes))


def _bytes(value: bytes | None) -> Callable[[str], Wire]:
    return lambda item_id: Wire(_key(item_id), value)


_TOO_LONG = "A plot of more than a megabyte. " * (DecodeLimits().max_bytes // 32 + 1)

_MISTAKES: Mapping[Reason, Callable[[str], Wire]] = MappingProxyType(
    {
        Reason.NOT_JSON: _bytes(b'{"type": "item.upserted", "item_id": '),
        Reason.WRONG_TYPE: _changed(item={"title": ["not", "a", "text"]}),
        Reason.BAD_VERSION: _changed(version=-3),
        Reason.NULL_KEY: lambda item_id: Wire(None, _event(item_id)),
        Reason.WRONG_KEY: lambda item_id: Wire(b"item:somebody-else", _event(item_id)),
        Reason.EMPTY_TITLE: _changed(item={"title": " \t\u200b"}),
        Reason.UNKNOWN_TYPE: _changed(type="item.renamed"),
        Reason.NOT_FINITE: _bytes(b'{"type": "item.upserted", "version": NaN}'),
        Reason.INVALID_UNICODE: _bytes(b'{"type": "item.upserted", "item_id": "\xff\xfe"}'),
        Reason.NOT_AN_OBJECT: _bytes(b'["item.upserted", 7]'),
        Reason.MISSING_FIELD: _changed(item=None),
        Reason.NULL_VALUE: _bytes(None),
        Reason.FUTURE_TIME: _changed(occurred_at="2999-01-01T00:00:00Z"),
        Reason.TYPE_MISMATCH: lambda item_id: Wire(
            _key(item_id), _event(item_id), (("ce_type", (CE_TYPE_PREFIX + REMOVED).encode()),)
        ),
        # It compresses to a few kilobytes, so the broker takes it.
        Reason.TOO_LARGE: _changed(item={"title": "Long", "plot": _TOO_LONG}),
    }
)
"""One mistake for each reason that a record of the catalogue can be refused for."""

MISTAKES = len(_MISTAKES)
