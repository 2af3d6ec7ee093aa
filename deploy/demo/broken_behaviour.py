"""Behaviour records that nobody should send: each must become one dead letter. Pure."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import orjson

from deploy.demo.broken import BrokenRecord, Wire, cycled
from schemas.behaviour import BEHAVIOUR, ERASED, BehaviourLimits
from schemas.events import CE_TYPE_PREFIX
from schemas.reasons import Reason
from schemas.topics import Topic


def broken_behaviour(user_ids: Sequence[str], times_ms: Sequence[int]) -> list[BrokenRecord]:
    """Return a record for each time: the kinds of mistake in turn, by the users in turn."""
    return cycled(_MISTAKES, Topic.USER_BEHAVIOUR, user_ids, times_ms)


def _event(user_id: str, **changes: object) -> bytes:
    """Return a sound event with some attributes changed; None leaves one out."""
    event: dict[str, object] = {
        "type": BEHAVIOUR,
        "user_id": user_id,
        "event_id": "an event that must never count",
        "occurred_at": "2013-07-01T12:00:00Z",
        "item_id": "tt0000001",
        "action": "rate",
        "value": 8,
        **changes,
    }
    return orjson.dumps({name: value for name, value in event.items() if value is not None})


def _key(user_id: str) -> bytes:
    return b"user:" + user_id.encode()


def _changed(**changes: object) -> Callable[[str], Wire]:
    return lambda user_id: Wire(_key(user_id), _event(user_id, **changes))


def _bytes(value: bytes | None) -> Callable[[str], Wire]:
    return lambda user_id: Wire(_key(user_id), value)


_TOO_LONG = "x" * (BehaviourLimits(frozenset()).max_bytes + 1)

_MISTAKES: Mapping[Reason, Callable[[str], Wire]] = MappingProxyType(
    {
        Reason.UNKNOWN_ACTION: _changed(action="stare"),
        Reason.MISSING_FIELD: _changed(event_id=None),
        Reason.FUTURE_TIME: _changed(occurred_at="2999-01-01T00:00:00Z"),
        Reason.NOT_JSON: _bytes(b'{"type": "user.behaviour", "user_id": '),
        Reason.WRONG_TYPE: _changed(value="eight stars"),
        Reason.NULL_KEY: lambda user_id: Wire(None, _event(user_id)),
        Reason.WRONG_KEY: lambda user_id: Wire(b"user:somebody-else", _event(user_id)),
        Reason.UNKNOWN_TYPE: _changed(type="user.renamed"),
        Reason.NOT_FINITE: _bytes(b'{"type": "user.behaviour", "value": NaN}'),
        Reason.INVALID_UNICODE: _bytes(b'{"type": "user.behaviour", "user_id": "\xff\xfe"}'),
        Reason.NOT_AN_OBJECT: _bytes(b'["user.behaviour", 7]'),
        Reason.NULL_VALUE: _bytes(None),
        Reason.INVALID_ID: _changed(item_id="no {braces} in ids"),
        Reason.TYPE_MISMATCH: lambda user_id: Wire(
            _key(user_id), _event(user_id), (("ce_type", (CE_TYPE_PREFIX + ERASED).encode()),)
        ),
        Reason.TOO_LARGE: _changed(event_id=_TOO_LONG),
    }
)
"""One mistake for each reason that a behaviour record can be refused for."""

BEHAVIOUR_MISTAKES = len(_MISTAKES)
