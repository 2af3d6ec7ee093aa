"""Lines of a catalogue file and of a knowledge file as registers, as the lanes would make them.

Also picks a fair share of a catalogue that is too large to fit a space on. Pure.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from schemas.entities import EntityKey
from schemas.errors import InvalidInput
from schemas.events import (
    REMOVED,
    UPSERTED,
    ContentPolicy,
    DecodeLimits,
    ItemRemoved,
    decode_catalog_event,
    entity_of,
    event_time_ms,
    parse_object,
)
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import Content, Document, Factors, Provenance, Removed
from schemas.reasons import Reason

_NO_VERSION = 0


@dataclass(slots=True)
class KeySample:
    """Documents of at most `limit` entities: those whose keys have the least digests.

    So the sample is the same in whatever order entities come, and nothing but their ids decides.
    """

    limit: int
    documents: dict[EntityKey, Document] = field(default_factory=dict)
    _greatest: list[tuple[int, EntityKey]] = field(default_factory=list)

    def add(self, key: EntityKey, document: Document) -> None:
        """Merge a document into the sample, if its key is in it."""
        known = self.documents.get(key)
        if known is not None:
            self.documents[key] = known.merge(document)
            return
        rank = -int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
        if len(self.documents) < self.limit:
            heapq.heappush(self._greatest, (rank, key))
            self.documents[key] = document
        elif rank > self._greatest[0][0]:
            _, out = heapq.heapreplace(self._greatest, (rank, key))
            del self.documents[out]
            self.documents[key] = document

    def live(self) -> Iterator[tuple[EntityKey, Document]]:
        """Yield the entities that have content, by key."""
        for key in sorted(self.documents):
            if self.documents[key].content is not None:
                yield key, self.documents[key]


def catalogue_document(
    line: bytes, policy: ContentPolicy, limits: DecodeLimits, *, now_ms: int
) -> tuple[EntityKey, Document]:
    """Return the item of a line and what it says of it; raises InvalidInput.

    A line is a whole event, or a plain item: its id in `item_id`, its fields beside it. Versions
    may be left out; then lines about one item must not contradict each other.
    """
    body = parse_object(line)
    if not _is_event(body):
        body = {
            "type": UPSERTED,
            "item_id": body.get("item_id"),
            "item": {name: value for name, value in body.items() if name != "item_id"},
        }
    if type(body.get("item_id")) is int:
        body["item_id"] = str(body["item_id"])
    body.setdefault("version", _NO_VERSION)
    item_id = body.get("item_id")
    key = f"item:{item_id if isinstance(item_id, str) else ''}".encode("utf-8", "replace")
    try:
        value = orjson.dumps(body)
    except TypeError as error:
        raise InvalidInput(Reason.INVALID_UNICODE, str(error)) from error
    event = decode_catalog_event(key, value, (), timestamp_ms=now_ms, now_ms=now_ms, limits=limits)
    happened_ms = event_time_ms(event, now_ms)
    if isinstance(event, ItemRemoved):
        return entity_of(event), Document(removed=Removed(event.version, happened_ms))
    fields = policy.content_of(event)
    content = Content(event.version, fields, content_fingerprint(fields), happened_ms)
    return entity_of(event), Document(content=content)


def _is_event(body: Mapping[str, object]) -> bool:
    # A plain item may have a field called type, too.
    return body.get("type") in (UPSERTED, REMOVED) or isinstance(body.get("item"), dict)


def recorded_factors(line: bytes) -> tuple[EntityKey, Factors]:
    """Return the item of a line `{"item_id": ..., "knowledge": {factor: text}}` and its factors.

    Raises InvalidInput.
    """
    body = parse_object(line)
    item_id, knowledge = body.get("item_id"), body.get("knowledge")
    if item_id is None or not isinstance(knowledge, dict):
        raise InvalidInput(Reason.MISSING_FIELD, "item_id and knowledge are needed")
    factors = {str(factor): str(text) for factor, text in knowledge.items()}
    provenance = Provenance(model="recorded", prompt_id="", fingerprint="")
    return EntityKey.item(str(item_id)), Factors(_NO_VERSION, 0, factors, provenance, 0)
