"""Catalogue events: what producers put on `catalog.items`, and the checks every one must pass.

Wire: JSON. CloudEvents 1.0 Kafka binary mode: attributes in `ce_*` headers, data in the value.
Plain JSON without headers is accepted, so the body carries everything that decides.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from math import isinf
from typing import Annotated, Literal, NoReturn

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.entities import MAX_VERSION, EntityKey, checked_id
from schemas.errors import InvalidInput
from schemas.fingerprints import Json
from schemas.reasons import Reason

CE_TYPE_PREFIX = "freshet."
UPSERTED = "item.upserted"
REMOVED = "item.removed"

Version = Annotated[int, Field(strict=True, ge=0, le=MAX_VERSION)]


class ItemFields(BaseModel):
    """The item's full state. Only `title` is required; other fields are the catalogue's own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    title: str = Field(description="Display title; must hold more than white space")


class _CatalogEvent(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    item_id: str = Field(description="Stable id of the item, 1-200 bytes, no white space or braces")
    version: Version = Field(
        description="Grows per item at the source: a sequence, an LSN or the update time in ms"
    )
    occurred_at: AwareDatetime | None = Field(
        default=None, description="When it happened at the source; the record's time if absent"
    )


class ItemUpserted(_CatalogEvent):
    """The item is as `item` says, whole: fields that are absent are gone."""

    type: Literal["item.upserted"] = "item.upserted"
    item: ItemFields


class ItemRemoved(_CatalogEvent):
    """The item left the catalogue."""

    type: Literal["item.removed"] = "item.removed"


CatalogEvent = Annotated[ItemUpserted | ItemRemoved, Field(discriminator="type")]
CATALOG_EVENT: TypeAdapter[ItemUpserted | ItemRemoved] = TypeAdapter(CatalogEvent)


@dataclass(frozen=True, slots=True)
class ContentPolicy:
    """Which fields carry meaning. Price, stock and view counts are left out: they cost no call."""

    semantic_fields: frozenset[str]
    max_text_chars: int = 8_000
    max_list_entries: int = 64

    def content_of(self, event: ItemUpserted) -> dict[str, Json]:
        """Return the semantically relevant fields, cleaned and bounded."""
        raw = {"title": event.item.title, **(event.item.model_extra or {})}
        kept: dict[str, Json] = {}
        for name in sorted(raw):
            if name == "title" or name in self.semantic_fields:
                value = self._clean(raw[name])
                if value is not None and value not in ("", []):
                    kept[name] = value
        return kept

    def _clean(self, value: object) -> Json:
        if not isinstance(value, list):
            return self._clean_scalar(value)
        return [
            clean
            for entry in value[: self.max_list_entries]
            if (clean := self._clean_scalar(entry)) is not None and clean != ""
        ]

    def _clean_scalar(self, value: object) -> str | int | float | None:
        if isinstance(value, str):
            return clean_text(value)[: self.max_text_chars]
        if isinstance(value, int | float):
            return value
        return None  # objects and lists of lists have no agreed text form


_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]+"
)
_SPACES = re.compile(r"\s+")


def clean_text(text: str) -> str:
    """Return `text` with control, bidi and zero-width characters and runs of space as one space."""
    # Nearly all text is clean, and the only printable white space is the space itself.
    if text.isprintable() and "  " not in text:
        return text.strip()
    return _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a catalogue record may be."""

    max_bytes: int = 1_048_576
    max_clock_skew_ms: int = 86_400_000
    version_from_record_timestamp: bool = False


def decode_catalog_event(
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    *,
    timestamp_ms: int,
    now_ms: int,
    limits: DecodeLimits,
) -> ItemUpserted | ItemRemoved:
    """Return the checked event of a Kafka record; raises InvalidInput with a stable reason."""
    if value is None:
        raise InvalidInput(Reason.NULL_VALUE, "catalog.items holds events, not tombstones")
    if len(value) > limits.max_bytes:
        raise InvalidInput(Reason.TOO_LARGE, f"{len(value)} bytes, allowed {limits.max_bytes}")
    if key is None:
        raise InvalidInput(Reason.NULL_KEY, "the key must be item:<id>")
    body = parse_object(value)
    settle_type(body, headers)
    if limits.version_from_record_timestamp:
        body.setdefault("version", timestamp_ms)
    event = _validate(body)
    checked_id(event.item_id)
    if key != b"item:" + event.item_id.encode():
        raise InvalidInput(Reason.WRONG_KEY, f"key {key[:80]!r} is not item:{event.item_id}")
    if event_time_ms(event, timestamp_ms) > now_ms + limits.max_clock_skew_ms:
        raise InvalidInput(Reason.FUTURE_TIME, f"occurred_at {event.occurred_at} is in the future")
    if isinstance(event, ItemUpserted) and not clean_text(event.item.title):
        raise InvalidInput(Reason.EMPTY_TITLE, "title holds nothing but white space")
    return event


def event_time_ms(event: ItemUpserted | ItemRemoved, timestamp_ms: int) -> int:
    """Return when it happened at the source (ms since the epoch), else the record's time."""
    if event.occurred_at is None:
        return timestamp_ms
    return round(event.occurred_at.timestamp() * 1000)


def entity_of(event: ItemUpserted | ItemRemoved) -> EntityKey:
    """Return the key of the event's item."""
    return EntityKey.item(event.item_id)


def encode_catalog_event(event: ItemUpserted | ItemRemoved) -> bytes:
    """Return the record value of an event."""
    return event.model_dump_json(exclude_none=True).encode()


def cloud_event_headers(
    event: ItemUpserted | ItemRemoved, *, source: str, id_: str
) -> list[tuple[str, bytes]]:
    """Return the CloudEvents 1.0 binary-mode headers of an event; no `ce_time` if none is known."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_source", source.encode()),
        ("ce_type", (CE_TYPE_PREFIX + event.type).encode()),
        ("ce_subject", str(entity_of(event)).encode()),
        ("content-type", b"application/json"),
    ]
    if event.occurred_at is not None:
        headers.append(("ce_time", event.occurred_at.astimezone(UTC).isoformat().encode()))
    return headers


def parse_object(value: bytes) -> dict[str, object]:
    """Return the JSON object in `value`; raises InvalidInput saying what it is instead."""
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        _explain_not_json(value, str(error))
    if not isinstance(body, dict):
        raise InvalidInput(Reason.NOT_AN_OBJECT, f"JSON {type(body).__name__}")
    return body


def _explain_not_json(value: bytes, detail: str) -> NoReturn:
    # Off the hot path: say which of the common mistakes it is.
    not_finite: list[str] = []

    def number(spelled: str) -> float:
        parsed = float(spelled)
        if isinf(parsed):
            not_finite.append(spelled[:40])
        return parsed

    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(Reason.INVALID_UNICODE, "not UTF-8") from error
    try:
        json.loads(text, parse_constant=not_finite.append, parse_float=number, parse_int=number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(Reason.NOT_JSON, detail) from error
    if not_finite:
        raise InvalidInput(Reason.NOT_FINITE, f"{not_finite[0]} is no finite number")
    raise InvalidInput(Reason.INVALID_UNICODE, detail)


def settle_type(body: dict[str, object], headers: Sequence[tuple[str, bytes]]) -> None:
    """Take the event's type from its header where the body has none; raises InvalidInput."""
    declared = dict(headers).get("ce_type")
    if declared is None:
        return
    declared_type = declared.decode("utf-8", "replace").removeprefix(CE_TYPE_PREFIX)
    if body.setdefault("type", declared_type) != declared_type:
        raise InvalidInput(
            Reason.TYPE_MISMATCH, f"ce_type {declared_type[:80]} but body {body['type']!r:.80}"
        )


_REASON_OF_ERROR: Mapping[str, Reason] = {
    "union_tag_not_found": Reason.MISSING_FIELD,
    "union_tag_invalid": Reason.UNKNOWN_TYPE,
    "missing": Reason.MISSING_FIELD,
    "finite_number": Reason.NOT_FINITE,
}


def as_invalid_input(error: ValidationError) -> InvalidInput:
    """Return what is wrong first with an event of a type, with its stable reason."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(step) for step in first["loc"][1:]) or "type"
    reason = _REASON_OF_ERROR.get(first["type"], Reason.WRONG_TYPE)
    if path == "version":
        reason = Reason.BAD_VERSION
    return InvalidInput(reason, f"{path}: {first['msg']}")


def _validate(body: dict[str, object]) -> ItemUpserted | ItemRemoved:
    try:
        return CATALOG_EVENT.validate_python(body)
    except ValidationError as error:
        raise as_invalid_input(error) from error
