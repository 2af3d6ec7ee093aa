"""Behaviour events: what producers put on `user.behaviour`, and the checks every one must pass.

One event a record, or a batch of several events of one partition: at high rates a record costs
more than what is in it. An event that fails its checks does not take its batch with it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Annotated, Literal, TypeAlias

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.entities import EntityKey, EntityKind, checked_id
from schemas.errors import InvalidInput
from schemas.events import CE_TYPE_PREFIX, as_invalid_input, parse_object, settle_type
from schemas.history import HistoryEvent, event_digest
from schemas.reasons import Reason

BEHAVIOUR = "user.behaviour"
ERASED = "user.erased"
BATCH = "user.behaviour.batch"

MAX_BATCH_EVENTS = 1_000
MAX_EVENT_ID_CHARS = 200
MAX_ACTION_BYTES = 32

_FLOAT32 = struct.Struct(">f")


class _UserEvent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    user_id: str = Field(description="Stable id of the user, 1-200 bytes, no white space or braces")
    occurred_at: AwareDatetime | None = Field(
        default=None, description="When it happened at the source; the record's time if absent"
    )


class UserBehaviour(_UserEvent):
    """The user did something with an item."""

    type: Literal["user.behaviour"] = "user.behaviour"
    event_id: str = Field(
        min_length=1,
        max_length=MAX_EVENT_ID_CHARS,
        description="The same for every repetition of one event, different for two events",
    )
    item_id: str = Field(description="Id of the item; it need not be in the catalogue yet")
    action: str = Field(description="view, click, like, rate, purchase, play, skip ...: settings")
    value: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] | None = Field(
        default=None, description="What the action is worth: the stars of a rating"
    )


class UserErased(_UserEvent):
    """Everything known of the user up to `occurred_at` has to go."""

    type: Literal["user.erased"] = "user.erased"


BehaviourEvent = Annotated[UserBehaviour | UserErased, Field(discriminator="type")]
BEHAVIOUR_EVENT: TypeAdapter[UserBehaviour | UserErased] = TypeAdapter(BehaviourEvent)


class BehaviourBatch(BaseModel):
    """Several events whose users all belong to the record's partition, in the order they happened.

    The record's key is that of the first event's user.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: Literal["user.behaviour.batch"] = "user.behaviour.batch"
    events: tuple[BehaviourEvent, ...] = Field(min_length=1, max_length=MAX_BATCH_EVENTS)


@dataclass(frozen=True, slots=True)
class BehaviourLimits:
    """What a behaviour record may be; `actions` are the known ones, `rated` those with a value."""

    actions: frozenset[str]
    rated: frozenset[str] = frozenset({"rate"})
    max_bytes: int = 1_048_576
    max_clock_skew_ms: int = 86_400_000


@dataclass(frozen=True, slots=True)
class Interaction:
    """A checked event of one user."""

    user: EntityKey
    event: HistoryEvent


@dataclass(frozen=True, slots=True)
class Erasure:
    """A checked wish to be forgotten."""

    user: EntityKey
    at_ms: int


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event of a batch that cannot be used; `value` is its JSON as it would be alone."""

    index: int
    reason: Reason
    detail: str
    user: EntityKey | None
    value: bytes


Checked: TypeAlias = Interaction | Erasure


@dataclass(frozen=True, slots=True)
class DecodedBehaviour:
    """What a record held. A record without any usable event raises instead."""

    events: tuple[Checked, ...]
    refused: tuple[RefusedEvent, ...] = ()


def decode_behaviour(
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    *,
    timestamp_ms: int,
    now_ms: int,
    limits: BehaviourLimits,
) -> DecodedBehaviour:
    """Return the checked events of a Kafka record; raises InvalidInput with a stable reason."""
    if value is None:
        raise InvalidInput(Reason.NULL_VALUE, "user.behaviour holds events, not tombstones")
    if len(value) > limits.max_bytes:
        raise InvalidInput(Reason.TOO_LARGE, f"{len(value)} bytes, allowed {limits.max_bytes}")
    if key is None:
        raise InvalidInput(Reason.NULL_KEY, "the key must be user:<id>")
    body = parse_object(value)
    settle_type(body, headers)
    if body.get("type") == BATCH:
        return _batch(key, body, timestamp_ms, now_ms, limits)
    checked = _checked(body, timestamp_ms, now_ms, limits)
    _check_key(key, checked.user)
    return DecodedBehaviour((checked,))


def _batch(
    key: bytes, body: Mapping[str, object], timestamp_ms: int, now_ms: int, limits: BehaviourLimits
) -> DecodedBehaviour:
    listed = body.get("events")
    if listed is None:
        raise InvalidInput(Reason.MISSING_FIELD, "events: a batch has events")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_BATCH_EVENTS:
        raise InvalidInput(Reason.WRONG_TYPE, f"events: a list of 1 to {MAX_BATCH_EVENTS}")
    events: list[Checked] = []
    refused: list[RefusedEvent] = []
    first: InvalidInput | None = None
    for index, one in enumerate(listed):
        try:
            if not isinstance(one, dict):
                raise InvalidInput(Reason.NOT_AN_OBJECT, f"events.{index} is no object")
            checked = _checked(one, timestamp_ms, now_ms, limits)
            if index == 0:
                _check_key(key, checked.user)
            events.append(checked)
        except InvalidInput as error:
            first = first or error
            refused.append(_refused(index, one, error))
    if not events and first is not None:
        raise first
    return DecodedBehaviour(tuple(events), tuple(refused))


def _refused(index: int, one: object, error: InvalidInput) -> RefusedEvent:
    user = one.get("user_id") if isinstance(one, dict) else None
    try:
        key = EntityKey(EntityKind.USER, checked_id(user)) if isinstance(user, str) else None
    except InvalidInput:
        key = None
    return RefusedEvent(index, error.reason, error.detail, key, orjson.dumps(one))


def _checked(
    body: dict[str, object], timestamp_ms: int, now_ms: int, limits: BehaviourLimits
) -> Checked:
    event = _validate(body)
    user = EntityKey(EntityKind.USER, checked_id(event.user_id))
    at_ms = (
        timestamp_ms if event.occurred_at is None else round(event.occurred_at.timestamp() * 1000)
    )
    if at_ms > now_ms + limits.max_clock_skew_ms:
        raise InvalidInput(Reason.FUTURE_TIME, f"occurred_at {event.occurred_at} is in the future")
    if at_ms < 0:
        raise InvalidInput(Reason.WRONG_TYPE, "occurred_at: before 1970")
    if isinstance(event, UserErased):
        return Erasure(user, at_ms)
    if event.action not in limits.actions:
        raise InvalidInput(
            Reason.UNKNOWN_ACTION,
            f"{event.action[:40]!r} is none of {', '.join(sorted(limits.actions))}",
        )
    if event.action in limits.rated and event.value is None:
        raise InvalidInput(Reason.MISSING_FIELD, f"value: {event.action} needs one")
    value = None if event.value is None else _as_float32(event.value)
    digest = event_digest(_encodable(event.event_id))
    return Interaction(
        user, HistoryEvent(at_ms, digest, checked_id(event.item_id), event.action, value)
    )


def _as_float32(value: float) -> float:
    # Not numpy's: producers need nothing of it.
    rounded: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    return rounded


def _encodable(event_id: str) -> str:
    try:
        event_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(Reason.INVALID_UNICODE, "event_id holds lone surrogates") from error
    return event_id


def _check_key(key: bytes, user: EntityKey) -> None:
    # Neither is repeated in the message: it goes to logs, where no user belongs.
    if key != user.encode():
        raise InvalidInput(Reason.WRONG_KEY, "the key is not user:<id> of the (first) event")


def _validate(body: dict[str, object]) -> UserBehaviour | UserErased:
    try:
        return BEHAVIOUR_EVENT.validate_python(body)
    except ValidationError as error:
        raise as_invalid_input(error) from error


def user_of(event: UserBehaviour | UserErased) -> EntityKey:
    """Return the key of the event's user; raises InvalidInput(invalid_id)."""
    return EntityKey(EntityKind.USER, checked_id(event.user_id))


def encode_behaviour(event: UserBehaviour | UserErased | BehaviourBatch) -> bytes:
    """Return the record value of an event, or of a batch of them."""
    return event.model_dump_json(exclude_none=True).encode()


def behaviour_headers(
    event: UserBehaviour | UserErased | BehaviourBatch, *, source: str, id_: str
) -> list[tuple[str, bytes]]:
    """Return the CloudEvents 1.0 binary-mode headers of a record of this topic."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source.encode()),
        ("ce_type", (CE_TYPE_PREFIX + event.type).encode()),
        ("content-type", b"application/json"),
    ]
    if not isinstance(event, BehaviourBatch):
        headers.append(("ce_subject", str(user_of(event)).encode()))
        if event.occurred_at is not None:
            headers.append(("ce_time", event.occurred_at.astimezone(UTC).isoformat().encode()))
    return headers
