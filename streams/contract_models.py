"""Freshet's own records as pydantic models: documentation of the wire, generated into schemas.

The codecs in `schemas/` are what runs; tests/unit/test_contracts.py holds these against what those
write, so neither can change alone.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from schemas.dead_letter import PREFIX
from schemas.entities import MAX_VERSION
from schemas.events import CatalogEvent, ItemRemoved, ItemUpserted
from schemas.knowledge import RequestKind
from schemas.reasons import Reason

Entity = Annotated[
    str,
    Field(pattern=r"^(item|user|group):.+$", description="kind:id, as in the record's key"),
]
Version = Annotated[int, Field(ge=0, le=MAX_VERSION, description="Of the source; orders registers")]
Milliseconds = Annotated[int, Field(ge=0, description="Milliseconds since the epoch")]
Fingerprint = Annotated[
    str, Field(pattern=r"^[0-9a-f]{32}$", description="blake2b-128, hexadecimal; orders nothing")
]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogEventValue(RootModel[ItemUpserted | ItemRemoved]):
    """What producers say of one item of their catalogue."""

    root: CatalogEvent


class RemovedRegister(_Wire):
    """The entity left the catalogue: registers whose version is not greater are dead."""

    version: Version
    event_time_ms: Milliseconds


class ContentRegister(_Wire):
    """The semantically relevant fields of one version of the item."""

    version: Version
    fields: dict[str, JsonValue]
    fingerprint: Fingerprint
    event_time_ms: Milliseconds


class ProvenanceValue(_Wire):
    """Who wrote the factors, and from what."""

    model: str
    prompt_id: str
    fingerprint: Fingerprint = Field(description="Of content, prompt and model together")
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    group: str | None = Field(description="The group it was written about, for collective factors")


class FactorsRegister(_Wire):
    """Factorized knowledge: one text for each factor."""

    version: Version
    generated_at_ms: Milliseconds
    factors: dict[str, str]
    event_time_ms: Milliseconds
    provenance: ProvenanceValue


class RemovedUpdate(_Wire):
    """The `removed` register of an entity."""

    entity: Entity
    register_name: Literal["removed"] = Field(alias="register")
    value: RemovedRegister


class ContentUpdate(_Wire):
    """The `content` register of an entity."""

    entity: Entity
    register_name: Literal["content"] = Field(alias="register")
    value: ContentRegister


class FactorsUpdate(_Wire):
    """The `individual` register of an entity, or the `collective` one of its group."""

    entity: Entity
    register_name: Literal["collective", "individual"] = Field(alias="register")
    value: FactorsRegister


class KnowledgeUpdateValue(RootModel[RemovedUpdate | ContentUpdate | FactorsUpdate]):
    """One register value of one entity."""

    root: Annotated[
        RemovedUpdate | ContentUpdate | FactorsUpdate, Field(discriminator="register_name")
    ]


class KnowledgeRequestValue(_Wire):
    """Knowledge about this entity is wanted."""

    entity: Entity
    kind: RequestKind
    version: Version
    fields: dict[str, JsonValue]
    content_fingerprint: Fingerprint | Literal[""] = Field(description="Empty for `remove`")
    event_time_ms: Milliseconds
    requested_at_ms: Milliseconds
    attempt: int = Field(0, ge=0, description="How often the quality gate refused before")
    not_before_ms: int = Field(0, ge=0, description="0 for at once")


class DocumentValue(_Wire):
    """An entity's registers; absent ones are unknown or dead."""

    removed: RemovedRegister | None = None
    content: ContentRegister | None = None
    collective: FactorsRegister | None = None
    individual: FactorsRegister | None = None


class EntityRecordValue(_Wire):
    """The whole merged document: the source of truth about an entity."""

    entity: Entity
    rev: int = Field(ge=1, description="Grows with every change; also in the vector's header")
    written_at_ms: Milliseconds
    document: DocumentValue


class RepresentationHeader(_Wire):
    """The JSON header of a representation record, after a u32 big-endian with its length.

    The present parts follow in order, each `dim` little-endian float16.
    """

    entity: Entity
    rev: int = Field(ge=1)
    encoder_id: str
    names: list[str]
    fingerprints: list[Fingerprint | None] = Field(description="None where the part is missing")
    dim: int = Field(gt=0)


class LiveUpdateValue(_Wire):
    """A live vector changed, or went (stage `none`). Versions are -1 where there is none."""

    entity: Entity
    space: str
    rev: int = Field(ge=1, description="As in the vector's header: lower ones are outdated")
    stage: Literal["none", "content", "collective", "individual"]
    content_version: int = Field(ge=-1)
    factors_version: int = Field(ge=-1)
    event_time_ms: Milliseconds
    written_at_ms: Milliseconds


class CloudEventHeaders(BaseModel):
    """CloudEvents 1.0 in Kafka binary mode. Optional: the body carries everything that decides."""

    model_config = ConfigDict(extra="allow")

    ce_specversion: Literal["1.0"] | None = None
    ce_id: str | None = None
    ce_source: str | None = None
    ce_type: Literal["freshet.item.upserted", "freshet.item.removed"] | None = Field(
        None, description="Must agree with `type` in the body when both are there"
    )
    ce_subject: str | None = None
    ce_time: str | None = None


class DeadLetterHeaders(BaseModel):
    """Put after the original record's own headers; values are UTF-8 text, numbers in decimal."""

    model_config = ConfigDict(
        extra="allow", alias_generator=lambda name: PREFIX + name, populate_by_name=True
    )

    reason: Reason
    detail: str = Field(max_length=500)
    stage: str
    attempts: int = Field(ge=0)
    first_seen_ms: int
    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    group: str
    original_bytes: int | None = Field(None, description="Size of a record of which only the head")
    original_digest: str | None = Field(None, description="blake2b-128 of that record's value")
