"""Small spaces and catalogues, and a deployment's settings, for tests of spaces and rebuilds."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from schemas.entities import EntityKey
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import Content, Document
from schemas.spaces import SpaceRecord, SpaceState
from streams.settings import (
    EncodeSettings,
    KafkaSettings,
    KnowledgeSettings,
    RedisSettings,
    Settings,
)
from tests.fakes.clock import START_MS
from tests.fakes.encoding import DIM, ENCODER_ID, HashEncoder
from tests.live_builders import factors
from workers.adaptors.adaptor import Adaptor
from workers.adaptors.parts_pca import fit_parts_pca
from workers.adaptors.raw import raw_adaptor
from workers.adaptors.space_files import save_space
from workers.encoding.parity import Golden
from workers.encoding.representation import Representer

PARTS = ("title", "content", "mood")
RAW = "minilm-parts"
PARTITIONS = 2


def film(version: int, title: str, *genres: str) -> Document:
    fields = {"title": title, "genres": list(genres)} if genres else {"title": title}
    content = Content(version, fields, content_fingerprint(fields), START_MS + version)
    return Document(content=content)


def films(count: int) -> dict[EntityKey, Document]:
    """Films by key, every other one with knowledge."""
    documents = {}
    for n in range(count):
        document = film(1, f"Film {n}", ("Drama", "Crime", "Horror")[n % 3])
        if n % 2:
            document = document.merge(Document(individual=factors(1, f"mood {n}")))
        documents[EntityKey.item(str(n))] = document
    return documents


def fields_of(document: Document) -> Mapping[str, Json]:
    assert document.content is not None
    return document.content.fields


def raw_space() -> Adaptor:
    return raw_adaptor(ENCODER_ID, PARTS, DIM, name=RAW)


def pca_space(name: str, dim: int = 6) -> Adaptor:
    """A fitted space over the parts of the raw one; the same every time."""
    representer = Representer(HashEncoder(), PARTS)
    texts = [representer.texts(document) for document in films(40).values()]
    values, mask, _ = representer.represent([(None, None, one) for one in texts])
    return fit_parts_pca(values, mask, name=name, encoder_id=ENCODER_ID, part_names=PARTS, dim=dim)


def save(directory: Path, *adaptors: Adaptor) -> None:
    for adaptor in adaptors:
        save_space(directory, adaptor, Golden.record(HashEncoder(), ("golden",)))


def registered(
    adaptor: Adaptor,
    state: SpaceState = SpaceState.ACTIVE,
    writer: str = "encode",
    changed_at_ms: int = 1,
) -> SpaceRecord:
    return SpaceRecord(space=adaptor.space, state=state, writer=writer, changed_at_ms=changed_at_ms)


def json_lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def deployment_settings(
    bootstrap_servers: str, redis_url: str, prefix: str, directory: Path
) -> Settings:
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap_servers, topic_prefix=prefix, partitions=PARTITIONS
        ),
        redis=RedisSettings(url=redis_url, key_prefix=prefix),
        knowledge=KnowledgeSettings(factors=["mood"]),
        encode=EncodeSettings(spaces_dir=directory, cache_dir=directory.with_suffix(".cache")),
    )
