"""Lines of a JSONL file as events of either topic, or as items with named fields. Pure."""

from dataclasses import dataclass

import orjson

from schemas.behaviour import (
    BEHAVIOUR,
    BEHAVIOUR_EVENT,
    ERASED,
    BehaviourEvent,
    BehaviourLimits,
    decode_behaviour,
)
from schemas.errors import InvalidInput
from schemas.events import (
    UPSERTED,
    CatalogEvent,
    DecodeLimits,
    decode_catalog_event,
    parse_object,
)
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class ItemMapping:
    """Which fields of a plain item hold its id, its version and when it happened."""

    id_field: str = "item_id"
    version_field: str | None = None
    time_field: str | None = None

    @property
    def maps(self) -> bool:
        """Whether lines are plain items; else they are whole events."""
        return self.version_field is not None


@dataclass(frozen=True, slots=True)
class LineLimits:
    """What an event of either topic may be."""

    catalog: DecodeLimits
    behaviour: BehaviourLimits


def event_of_line(
    line: bytes, mapping: ItemMapping, *, now_ms: int, limits: LineLimits
) -> CatalogEvent | BehaviourEvent:
    """Return the checked event of a line; raises InvalidInput with a stable reason."""
    body = parse_object(line)
    if mapping.maps:
        body = _event_of_item(body, mapping)
    try:
        value = orjson.dumps(body)
    except TypeError as error:
        raise InvalidInput(Reason.INVALID_UNICODE, str(error)) from error
    if body.get("type") in (BEHAVIOUR, ERASED):
        decode_behaviour(
            _key("user", body),
            value,
            (),
            timestamp_ms=now_ms,
            now_ms=now_ms,
            limits=limits.behaviour,
        )
        return BEHAVIOUR_EVENT.validate_python(body)
    return decode_catalog_event(
        _key("item", body),
        value,
        (),
        timestamp_ms=now_ms,
        now_ms=now_ms,
        limits=limits.catalog,
    )


def _key(kind: str, body: dict[str, object]) -> bytes:
    id_ = body.get(f"{kind}_id")
    # A wrong id is found by the decoder, before it looks at the key.
    spelled = id_.encode("utf-8", "replace") if isinstance(id_, str) else b""
    return kind.encode() + b":" + spelled


def _event_of_item(item: dict[str, object], mapping: ItemMapping) -> dict[str, object]:
    fields = dict(item)
    item_id = fields.pop(mapping.id_field, None)
    if item_id is None:
        raise InvalidInput(Reason.MISSING_FIELD, f"{mapping.id_field}: the item's id")
    event: dict[str, object] = {
        "type": UPSERTED,
        # Numbers are common as ids in exports; true and 4.2 are mistakes.
        "item_id": str(item_id) if type(item_id) is int else item_id,
        "item": fields,
    }
    if mapping.version_field is not None:
        if mapping.version_field not in fields:
            raise InvalidInput(Reason.BAD_VERSION, f"{mapping.version_field}: missing")
        event["version"] = fields.pop(mapping.version_field)
    if mapping.time_field is not None:
        event["occurred_at"] = fields.pop(mapping.time_field, None)
    return event
