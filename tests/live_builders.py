"""Documents, vector records and spaces as tests of the live store need them."""

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.knowledge import Content, Document, Factors, Provenance, RegisterName, Removed
from schemas.spaces import Space, SpaceRecord, SpaceState
from schemas.vector_record import VectorHeader, VectorRecord


def item(id_: object) -> EntityKey:
    return EntityKey.item(str(id_))


def content(version: int, title: str = "Heat") -> Document:
    return Document.of(
        RegisterName.CONTENT, Content(version, {"title": title}, f"{version:032x}", 1_000 + version)
    )


def factors(version: int, mood: str = "tense", generated_at_ms: int = 5) -> Factors:
    provenance = Provenance("model", "prompt", f"{version:032x}", 10, 20, None)
    return Factors(version, generated_at_ms, {"mood": mood}, provenance, 1_000 + version)


def individual(version: int, mood: str = "tense") -> Document:
    return Document.of(RegisterName.INDIVIDUAL, factors(version, mood))


def removed(version: int) -> Document:
    return Document.of(RegisterName.REMOVED, Removed(version, 1_000 + version))


def vector(
    rev: int,
    values: object = (1.0, 2.0, 3.0, 4.0),
    *,
    dtype: str = "float16",
    stage: int = 1,
    content_version: int = 7,
    written_at_ms: int = 2_000,
) -> bytes:
    array = np.asarray(values, dtype)
    header = VectorHeader(
        stage, dtype, array.size, 3, rev, content_version, -1, 1_500, written_at_ms
    )
    return VectorRecord(header, array).encode()


def space_record(
    name: str,
    dim: int = 4,
    *,
    dtype: str = "float16",
    default: tuple[float, ...] | None = None,
) -> SpaceRecord:
    space = Space(
        name=name,
        kinds=(EntityKind.ITEM, EntityKind.USER),
        encoder_id="encoder",
        adaptor_id="raw",
        parts=("title", "content"),
        part_dim=2,
        dim=dim,
        dtype=dtype,
    )
    return SpaceRecord(
        space=space, state=SpaceState.ACTIVE, writer="encode", changed_at_ms=1, default=default
    )
