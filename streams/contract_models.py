"""Freshet's own records as pydantic models: documentation of the wire, generated into schemas.

Those of users are in `streams/behaviour_contract_models.py`. The codecs in `schemas/` are what
runs; tests/unit/test_contracts.py holds these against what those write, so neither can change
alone.
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
Version = Annotated[
    int,
    Field(
        ge=0, le=MAX_VERSION, description="The source's, of a user the history's; orders registers"
    ),
]
Milliseconds = Annotated[int, Field(ge=0, description="Milliseconds since the epoch")]
Fingerprint = Annotated[
    str, Field(pattern=r"^[0-9a-f]{32}$", description="blake2b-128, hexadecimal; orders nothing")
]


Fields = Annotated[
    dict[str, JsonValue],
    Field(
        description=(
            "An item's semantic fields. Of a user `liked` and `disliked`: lists of {item, title,"
            " year, genres, signal}, most telling first"
        )
    ),
]


class Wire(BaseModel):
    """A record that Freshet writes: nothing is in it but what is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogEventValue(RootModel[ItemUpserted | ItemRemoved]):
    """What producers say of one item of their catalogue."""

    root: CatalogEvent


class RemovedRegister(Wire):
    """The entity left the catalogue: registers whose version is not greater are dead."""

    version: Version
    event_time_ms: Milliseconds


class ContentRegister(Wire):
    """The semantically relevant fields of one version of the item; of a user their taste."""

    version: Version
    fields: Fields
    fingerprint: Fingerprint
    event_time_ms: Milliseconds


class ProvenanceValue(Wire):
    """Who wrote the factors, and from what."""

    model: str
    prompt_id: str
    fingerprint: Fingerprint = Field(description="Of content, prompt and model together")
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    group: str | None = Field(description="The group it was written about, for collective factors")


class FactorsRegister(Wire):
    """Factorized knowledge: one text for each factor."""

    version: Version
    generated_at_ms: Milliseconds
    factors: dict[str, str]
    event_time_ms: Milliseconds
    provenance: ProvenanceValue


class RemovedUpdate(Wire):
    """The `removed` register of an entity."""

    entity: Entity
    register_name: Literal["removed"] = Field(alias="register")
    value: RemovedRegister


class ContentUpdate(Wire):
    """The `content` register of an entity."""

    entity: Entity
    register_name: Literal["content"] = Field(alias="register")
    value: ContentRegister


class FactorsUpdate(Wire):
    """The `individual` register of an entity, or the `collective` one of its group."""

    entity: Entity
    register_name: Literal["collective", "individual"] = Field(alias="register")
    value: FactorsRegister


class KnowledgeUpdateValue(RootModel[RemovedUpdate | ContentUpdate | FactorsUpdate]):
    """One register value of one entity."""

    root: Annotated[
        RemovedUpdate | ContentUpdate | FactorsUpdate, Field(discriminator="register_name")
    ]


class KnowledgeRequestValue(Wire):
    """Knowledge about this entity is wanted; about a user under a revision of their history."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "entity": "user:7",
                    "kind": "user",
                    "version": 1371240960123,
                    "fields": {
                        "liked": [
                            {
                                "item": "42",
                                "title": "Heat",
                                "year": 1995,
                                "genres": ["Crime"],
                                "signal": "loved",
                            }
                        ],
                        "disliked": [],
                    },
                    "content_fingerprint": "0123456789abcdef0123456789abcdef",
                    "event_time_ms": 1371240900000,
                    "requested_at_ms": 1371240960500,
                    "attempt": 0,
                    "not_before_ms": 0,
                }
            ]
        }
    )

    entity: Entity
    kind: RequestKind
    version: Version
    fields: Fields
    content_fingerprint: Fingerprint | Literal[""] = Field(description="Empty for `remove`")
    event_time_ms: Milliseconds
    requested_at_ms: Milliseconds
    attempt: int = Field(0, ge=0, description="How often the quality gate refused before")
    not_before_ms: int = Field(0, ge=0, description="0 for at once")


class DocumentValue(Wire):
    """An entity's registers; absent ones are unknown or dead."""

    removed: RemovedRegister | None = None
    content: ContentRegister | None = None
    collective: FactorsRegister | None = None
    individual: FactorsRegister | None = None


class EntityRecordValue(Wire):
    """The whole merged document: the source of truth about an entity."""

    entity: Entity
    rev: int = Field(ge=1, description="Grows with every change; also in the vector's header")
    written_at_ms: Milliseconds
    document: DocumentValue


class RepresentationHeader(Wire):
    """The JSON header of a representation record, after a u32 big-endian with its length.

    The present parts follow in order, each `dim` little-endian float16.
    """

    entity: Entity
    rev: int = Field(ge=1)
    encoder_id: str
    names: list[str]
    fingerprints: list[Fingerprint | None] = Field(description="None where the part is missing")
    dim: int = Field(gt=0)


class LiveUpdateValue(Wire):
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
    ce_type: (
        Literal[
            "freshet.item.upserted",
            "freshet.item.removed",
            "freshet.user.behaviour",
            "freshet.user.erased",
            "freshet.user.behaviour.batch",
        ]
        | None
    ) = Field(None, description="Must agree with `type` in the body when both are there")
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
