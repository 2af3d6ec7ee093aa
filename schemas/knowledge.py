"""An entity's document: a product of maximum registers, and what travels on the knowledge topics.

Merging is commutative, associative and idempotent, so at-least-once delivery, replays, two writers
at once and reordering all converge. Source: state-based CRDTs (Shapiro et al. 2011), max registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeAlias, TypeVar

import orjson

from schemas.entities import EntityKey, Stage
from schemas.errors import Permanent
from schemas.fingerprints import Json, canonical_json, digest
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Removed:
    """The entity left the catalogue at `version`; whatever is not newer is dead."""

    version: int
    event_time_ms: int

    @property
    def generated_at_ms(self) -> int:
        """Registers from the source order by version alone."""
        return 0


@dataclass(frozen=True, slots=True)
class Content:
    """The item as its source described it: the semantically relevant fields of one version."""

    version: int
    fields: Mapping[str, Json]
    fingerprint: str
    event_time_ms: int

    @property
    def generated_at_ms(self) -> int:
        """Registers from the source order by version alone."""
        return 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who wrote the factors and from what: everything `explain` shows and `refresh` selects by."""

    model: str
    prompt_id: str
    fingerprint: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Factors:
    """Factorized knowledge: of a call of its own (individual), or a shared one (collective)."""

    version: int
    generated_at_ms: int
    factors: Mapping[str, str]
    provenance: Provenance
    event_time_ms: int


Register: TypeAlias = Removed | Content | Factors


class RegisterName(StrEnum):
    """The registers of a document."""

    REMOVED = "removed"
    CONTENT = "content"
    COLLECTIVE = "collective"
    INDIVIDUAL = "individual"


def order(register: Register) -> tuple[int, int, str]:
    """Return the total order of a register: (version, generated_at_ms, hash).

    The hash of a content begins with its fingerprint, because that is all the items lane remembers
    of it: both must pick the same winner of two contents of one version.
    """
    whole = digest(canonical_json(_register_to_json(register)))
    if isinstance(register, Content):
        whole = register.fingerprint + whole
    return register.version, register.generated_at_ms, whole


R = TypeVar("R", Removed, Content, Factors)


def newest(left: R | None, right: R | None) -> R | None:
    """Return the greater of two values of one register."""
    if left is None or right is None:
        return right if left is None else left
    # Comparing the cheap part first keeps the hash off the hot path.
    left_rank = (left.version, left.generated_at_ms)
    right_rank = (right.version, right.generated_at_ms)
    if left_rank != right_rank:
        return left if left_rank > right_rank else right
    # Not ==: 1995 equals 1995.0 in Python, but they are two values on the wire.
    return left if left is right or order(left) >= order(right) else right


@dataclass(frozen=True, slots=True)
class Document:
    """All registers of one entity. Dead registers are dropped, so a removal forgets the text."""

    removed: Removed | None = None
    content: Content | None = None
    collective: Factors | None = None
    individual: Factors | None = None

    @classmethod
    def of(cls, name: RegisterName, value: Register) -> Self:
        """Return the document that holds this one register."""
        return cls(**{name.value: value})  # type: ignore[arg-type]  # the pair is checked on decode

    def merge(self, other: Self) -> Self:
        """Return the least document that is at least as new as both."""
        removed = newest(self.removed, other.removed)
        floor = -1 if removed is None else removed.version
        return type(self)(
            removed,
            _alive(newest(self.content, other.content), floor),
            _alive(newest(self.collective, other.collective), floor),
            _alive(newest(self.individual, other.individual), floor),
        )

    @property
    def is_removed(self) -> bool:
        """Whether a removal is the newest thing known: no live content, nothing to rank."""
        return self.removed is not None and self.content is None

    @property
    def live_factors(self) -> Factors | None:
        """Individual knowledge if there is some, else what was shared."""
        return self.individual or self.collective

    @property
    def stage(self) -> Stage:
        """The stage of a vector made from this document."""
        if self.individual is not None:
            return Stage.INDIVIDUAL
        if self.collective is not None:
            return Stage.COLLECTIVE
        return Stage.CONTENT if self.content is not None else Stage.NONE

    @property
    def versions_behind(self) -> int | None:
        """Content version minus the live factors' version: how stale the knowledge is."""
        factors = self.live_factors
        if self.content is None or factors is None:
            return None
        return max(0, self.content.version - factors.version)

    def to_json(self) -> dict[str, Json]:
        """Return the document as JSON-ready values; absent registers are left out."""
        registers: tuple[tuple[RegisterName, Register | None], ...] = (
            (RegisterName.REMOVED, self.removed),
            (RegisterName.CONTENT, self.content),
            (RegisterName.COLLECTIVE, self.collective),
            (RegisterName.INDIVIDUAL, self.individual),
        )
        return {
            name.value: _register_to_json(value) for name, value in registers if value is not None
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Self:
        """Return the document that `to_json` wrote; raises Permanent(unreadable_knowledge)."""
        registers = {
            name: _register_from_json(name, raw[name.value])
            for name in RegisterName
            if name.value in raw
        }
        return cls(**{name.value: value for name, value in registers.items()})  # type: ignore[arg-type]


def _alive(register: R | None, floor: int) -> R | None:
    return register if register is not None and register.version > floor else None


def _register_to_json(register: Register) -> dict[str, Json]:
    match register:
        case Removed():
            return {"version": register.version, "event_time_ms": register.event_time_ms}
        case Content():
            return {
                "version": register.version,
                "fields": register.fields,
                "fingerprint": register.fingerprint,
                "event_time_ms": register.event_time_ms,
            }
        case Factors():
            provenance = register.provenance
            return {
                "version": register.version,
                "generated_at_ms": register.generated_at_ms,
                "factors": register.factors,
                "event_time_ms": register.event_time_ms,
                "provenance": {
                    "model": provenance.model,
                    "prompt_id": provenance.prompt_id,
                    "fingerprint": provenance.fingerprint,
                    "prompt_tokens": provenance.prompt_tokens,
                    "completion_tokens": provenance.completion_tokens,
                    "group": provenance.group,
                },
            }


def _register_from_json(name: RegisterName, raw: object) -> Register:
    # These records are written by Freshet alone: a wrong one is a wrong writer, so one reason does.
    try:
        return _read_register(name, dict(raw))  # type: ignore[call-overload]  # checked by except
    except (KeyError, TypeError, ValueError) as error:
        raise Permanent(Reason.UNREADABLE_KNOWLEDGE, f"{name.value}: {error!r}") from error


def _read_register(name: RegisterName, raw: dict[str, object]) -> Register:
    version = _integer(raw["version"])
    event_time_ms = _integer(raw["event_time_ms"])
    match name:
        case RegisterName.REMOVED:
            return Removed(version, event_time_ms)
        case RegisterName.CONTENT:
            fields = raw["fields"]
            if not isinstance(fields, dict):
                raise TypeError("fields is not an object")
            return Content(version, fields, str(raw["fingerprint"]), event_time_ms)
        case RegisterName.COLLECTIVE | RegisterName.INDIVIDUAL:
            factors, provenance = raw["factors"], raw["provenance"]
            if not isinstance(factors, dict) or not isinstance(provenance, dict):
                raise TypeError("factors or provenance is not an object")
            return Factors(
                version,
                _integer(raw["generated_at_ms"]),
                {str(factor): str(text) for factor, text in factors.items()},
                Provenance(**provenance),
                event_time_ms,
            )


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


@dataclass(frozen=True, slots=True)
class KnowledgeUpdate:
    """A value of the `knowledge` topic: one register value of one entity."""

    entity: EntityKey
    register: RegisterName
    value: Register

    def encode(self) -> bytes:
        """Return the record value."""
        return orjson.dumps(
            {
                "entity": str(self.entity),
                "register": self.register.value,
                "value": _register_to_json(self.value),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the update in a record value; raises Permanent."""
        raw = _object(value)
        try:
            name = RegisterName(str(raw["register"]))
            entity = EntityKey.parse(str(raw["entity"]))
            register = raw["value"]
        except (KeyError, ValueError) as error:
            raise Permanent(Reason.UNREADABLE_KNOWLEDGE, repr(error)) from error
        return cls(entity, name, _register_from_json(name, register))


class RequestKind(StrEnum):
    """Why knowledge is wanted."""

    NEW = "new"
    CHANGED = "changed"
    REMOVE = "remove"
    REFRESH = "refresh"
    UPGRADE = "upgrade"
    USER = "user"


@dataclass(frozen=True, slots=True)
class KnowledgeRequest:
    """A value of `knowledge.requests` and `knowledge.backlog`: write about this entity."""

    entity: EntityKey
    kind: RequestKind
    version: int
    fields: Mapping[str, Json]
    content_fingerprint: str
    event_time_ms: int
    requested_at_ms: int
    attempt: int = 0
    not_before_ms: int = 0

    def encode(self) -> bytes:
        """Return the record value."""
        return orjson.dumps(
            {
                "entity": str(self.entity),
                "kind": self.kind.value,
                "version": self.version,
                "fields": self.fields,
                "content_fingerprint": self.content_fingerprint,
                "event_time_ms": self.event_time_ms,
                "requested_at_ms": self.requested_at_ms,
                "attempt": self.attempt,
                "not_before_ms": self.not_before_ms,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the request in a record value; raises Permanent."""
        raw = _object(value)
        try:
            fields = raw["fields"]
            if not isinstance(fields, dict):
                raise TypeError("fields is not an object")
            return cls(
                EntityKey.parse(str(raw["entity"])),
                RequestKind(str(raw["kind"])),
                _integer(raw["version"]),
                fields,
                str(raw["content_fingerprint"]),
                _integer(raw["event_time_ms"]),
                _integer(raw["requested_at_ms"]),
                _integer(raw.get("attempt", 0)),
                _integer(raw.get("not_before_ms", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(Reason.UNREADABLE_KNOWLEDGE, repr(error)) from error


@dataclass(frozen=True, slots=True)
class EntityRecord:
    """A value of the compacted `entities` topic: the whole merged document and its revision."""

    entity: EntityKey
    rev: int
    document: Document
    written_at_ms: int

    def encode(self) -> bytes:
        """Return the record value."""
        return orjson.dumps(
            {
                "entity": str(self.entity),
                "rev": self.rev,
                "written_at_ms": self.written_at_ms,
                "document": self.document.to_json(),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the record in a value; raises Permanent."""
        raw = _object(value)
        try:
            document = raw["document"]
            if not isinstance(document, dict):
                raise TypeError("document is not an object")
            return cls(
                EntityKey.parse(str(raw["entity"])),
                _integer(raw["rev"]),
                Document.from_json(document),
                _integer(raw["written_at_ms"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Permanent(Reason.UNREADABLE_KNOWLEDGE, repr(error)) from error


def _object(value: bytes) -> dict[str, object]:
    try:
        raw = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Permanent(Reason.UNREADABLE_KNOWLEDGE, str(error)) from error
    if not isinstance(raw, dict):
        raise Permanent(Reason.UNREADABLE_KNOWLEDGE, "not an object")
    return raw
