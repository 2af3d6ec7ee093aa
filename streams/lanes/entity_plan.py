"""What the encode lane does about one entity, and the records that say so. Pure.

A plan compares the merged document with the stored one; the records are the same whether they are
produced for the first time or again after a crash between Redis and Kafka.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey, Stage
from schemas.fingerprints import text_fingerprint
from schemas.knowledge import Document, EntityRecord
from schemas.live_update import LiveUpdate
from schemas.representation_record import RepresentationRecord
from schemas.spaces import Space
from schemas.topics import Topic
from schemas.vector_record import NO_VERSION, VectorHeader, VectorRecord
from streams.emitter import Outgoing
from streams.lanes.vector_rules import is_described, is_from_documents
from workers.live.entity_records import StoredEntity


class Verdict(Enum):
    """What a plan asks for."""

    WRITE = "write"  # the document changes (or its representation is lost): a new revision
    REPEAT = "repeat"  # it is written already, but perhaps not yet produced
    STALE = "stale"  # all of it is older than what is stored


@dataclass(frozen=True, slots=True)
class RawParts:
    """`values` (P, d) of the raw space's dtype, zeros where `mask` (P,) is False."""

    values: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """`document` is the merged one; `raw` the stored parts, None if there are none.

    `repeats` tells whether some incoming register is the stored one: then an earlier attempt wrote
    it, and may have ended before it produced anything.
    """

    entity: EntityKey
    stored: StoredEntity
    document: Document
    verdict: Verdict
    repeats: bool
    raw: RawParts | None


def make_plan(news: Document, stored: StoredEntity, raw_space: Space) -> Plan:
    """Return what to do about a document that arrived, given what is stored."""
    merged = stored.document.merge(news)
    repeats = _shares_register(news, stored.document)
    raw = raw_parts(stored, raw_space)
    lacks_raw = (
        raw is None
        and is_from_documents(raw_space, stored.key.kind)
        and is_described(stored.key, merged, raw_space.parts)
    )
    if merged != stored.document or lacks_raw:
        verdict = Verdict.WRITE
    else:
        verdict = Verdict.REPEAT if repeats else Verdict.STALE
    return Plan(stored.key, stored, merged, verdict, repeats, raw)


def _shares_register(news: Document, stored: Document) -> bool:
    pairs = (
        (news.removed, stored.removed),
        (news.content, stored.content),
        (news.collective, stored.collective),
        (news.individual, stored.individual),
    )
    return any(new is not None and new == old for new, old in pairs)


def raw_parts(stored: StoredEntity, raw_space: Space) -> RawParts | None:
    """Return the stored parts; None unless they were made from the stored document."""
    if stored.raw is None:
        return None
    try:
        record = VectorRecord.decode(stored.raw)
    except ValueError:
        return None  # of another format: made anew
    if record.header.rev != stored.rev or record.header.dim != raw_space.dim:
        return None
    count = len(raw_space.parts)
    mask = np.array([bool(record.header.mask >> part & 1) for part in range(count)])
    return RawParts(record.vector.reshape(count, raw_space.part_dim), mask)


def vector_record(
    document: Document,
    space: Space,
    vector: npt.NDArray[np.float32],
    *,
    rev: int,
    mask: int,
    written_at_ms: int,
) -> bytes:
    """Return the stored bytes of a vector (dim,) made from revision `rev` of a document."""
    header = VectorHeader(
        stage=document.stage,
        dtype=space.dtype,
        dim=space.dim,
        mask=mask,
        rev=rev,
        content_version=content_version(document),
        factors_version=factors_version(document),
        event_time_ms=event_time_ms(document),
        written_at_ms=written_at_ms,
    )
    return VectorRecord(header, vector).encode()


def mask_bits(mask: npt.NDArray[np.bool_]) -> int:
    """Return (P,) as an integer: bit i is part i."""
    return sum(1 << part for part in np.flatnonzero(mask).tolist())


def content_version(document: Document) -> int:
    """Return the content's version, -1 when there is none."""
    return NO_VERSION if document.content is None else document.content.version


def factors_version(document: Document) -> int:
    """Return the live factors' version, -1 when there are none."""
    factors = document.live_factors
    return NO_VERSION if factors is None else factors.version


def event_time_ms(document: Document) -> int:
    """Return the event time of the newest register that a vector is made from."""
    used = [
        register for register in (document.content, document.live_factors) if register is not None
    ]
    if not used:
        return 0 if document.removed is None else document.removed.event_time_ms
    return max(used, key=lambda register: register.version).event_time_ms


def entity_message(
    entity: EntityKey, document: Document, *, rev: int, written_at_ms: int
) -> Outgoing:
    """Return the record of the compacted `entities` topic."""
    record = EntityRecord(entity, rev, document, written_at_ms)
    return Outgoing(Topic.ENTITIES, entity.encode(), record.encode())


def representation_message(
    entity: EntityKey,
    space: Space,
    parts: npt.NDArray[np.floating],
    texts: Sequence[str | None],
    *,
    rev: int,
) -> Outgoing:
    """Return the record of the compacted `representations` topic for `parts` (P, d)."""
    present = np.array([text is not None for text in texts])
    record = RepresentationRecord(
        entity=entity,
        rev=rev,
        encoder_id=space.encoder_id,
        names=space.parts,
        fingerprints=tuple(None if text is None else text_fingerprint(text) for text in texts),
        parts=parts[present].astype(np.float16),
    )
    return Outgoing(Topic.REPRESENTATIONS, entity.encode(), record.encode())


def no_representation_message(entity: EntityKey) -> Outgoing:
    """Return the tombstone of a removed entity's representation."""
    return Outgoing(Topic.REPRESENTATIONS, entity.encode(), None)


def live_update_message(
    entity: EntityKey,
    document: Document,
    space: str,
    *,
    is_live: bool,
    rev: int,
    written_at_ms: int,
) -> Outgoing:
    """Return the announcement that the entity's vector in a space changed, or (not live) went."""
    update = LiveUpdate(
        entity=entity,
        space=space,
        rev=rev,
        stage=document.stage if is_live else Stage.NONE,
        content_version=content_version(document),
        factors_version=factors_version(document) if is_live else NO_VERSION,
        event_time_ms=event_time_ms(document),
        written_at_ms=written_at_ms,
    )
    return Outgoing(Topic.LIVE_UPDATES, entity.encode(), update.encode())
