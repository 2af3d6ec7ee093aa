"""Records, events and lanes as tests of the lanes need them."""

from collections.abc import Sequence

import orjson

from schemas.entities import EntityKey
from schemas.events import ContentPolicy, DecodeLimits
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import KnowledgeRequest, RequestKind
from schemas.topics import Topic
from streams.emitter import Outgoing
from streams.engine.lane import Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.lanes.items import ItemChange, ItemsLane
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.emitter import FakeEmitter
from tests.fakes.stores import InMemorySeen
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import Domain

POLICY = ContentPolicy(frozenset({"title", "year", "genres"}))


def record(topic: str, key: bytes | None, value: bytes | None, *, offset: int = 0) -> Record:
    return Record(topic, 0, offset, key, value, (), START_MS)


def as_record(message: Outgoing, *, offset: int = 0) -> Record:
    return record(message.topic, message.key, message.value, offset=offset)


def upserted(version: int, title: str, *, id_: str = "42", **fields: object) -> Record:
    event = {
        "type": "item.upserted",
        "item_id": id_,
        "version": version,
        "item": {"title": title, **fields},
    }
    return record(Topic.CATALOG_ITEMS, f"item:{id_}".encode(), orjson.dumps(event))


def removed(version: int, *, id_: str = "42") -> Record:
    event = {"type": "item.removed", "item_id": id_, "version": version}
    return record(Topic.CATALOG_ITEMS, f"item:{id_}".encode(), orjson.dumps(event))


def items_lane(
    emitter: FakeEmitter, seen: InMemorySeen, clock: FakeClock | None = None
) -> ItemsLane:
    return ItemsLane(emitter, seen, POLICY, DecodeLimits(), clock or FakeClock())


def change(version: int, title: str | None, *, id_: str = "42") -> ItemChange:
    """A change as the items lane decodes it; title None is a removal."""
    fields = None if title is None else {"title": title}
    fingerprint = "" if fields is None else content_fingerprint(fields)
    return ItemChange(EntityKey.item(id_), version, fields, fingerprint, START_MS + version)


def request(
    version: int,
    title: str = "Heat",
    *,
    id_: str = "42",
    kind: RequestKind = RequestKind.NEW,
    requested_at_ms: int = START_MS,
    attempt: int = 0,
    not_before_ms: int = 0,
) -> KnowledgeRequest:
    fields = {"title": title}
    return KnowledgeRequest(
        entity=EntityKey.item(id_),
        kind=kind,
        version=version,
        fields={} if kind is RequestKind.REMOVE else fields,
        content_fingerprint="" if kind is RequestKind.REMOVE else content_fingerprint(fields),
        event_time_ms=START_MS + version,
        requested_at_ms=requested_at_ms,
        attempt=attempt,
        not_before_ms=not_before_ms,
    )


def movies() -> Domain:
    return load_domain("movies", factors=["mood"], max_factor_chars=400, max_tokens=400)


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    return [result.outcome for result in results if isinstance(result, Settled)]
