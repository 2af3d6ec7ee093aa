"""What lanes and the entity store hand each other. Needs no Redis: lanes and fakes import it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.entities import EntityKey
from schemas.knowledge import Document


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """An entity as loaded: `rev` is 0 when nothing is stored, `raw` the raw space's record."""

    key: EntityKey
    document: Document
    rev: int
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class EntityWrite:
    """A new document that replaces revision `expected_rev` and becomes `expected_rev` + 1.

    `vectors` are the records made from it, by space; `drop` names spaces whose vector goes.
    """

    key: EntityKey
    expected_rev: int
    document: Document
    vectors: Mapping[str, bytes] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
