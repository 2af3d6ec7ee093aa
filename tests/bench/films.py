"""Real-size data for the bench: the demo's films under as many ids as are wanted."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import Content, Document, Factors, Provenance
from streams.producers import CatalogProducer

_DATA = Path(__file__).parents[2] / "deploy" / "demo" / "data"

EVENT_TIME_MS = 1_370_000_000_000


@cache
def _lines(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (_DATA / name).read_text("utf-8").splitlines())


@cache
def films() -> tuple[Mapping[str, Json], ...]:
    """Return the fields of the demo's films, without their ids."""
    return tuple(
        {name: value for name, value in line.items() if name != "item_id"}
        for line in _lines("catalog.jsonl")
    )


@cache
def knowledge() -> tuple[Mapping[str, str], ...]:
    """Return the recorded knowledge of the same films, in the same order."""
    by_id = {line["item_id"]: line["knowledge"] for line in _lines("knowledge.jsonl")}
    return tuple(by_id[line["item_id"]] for line in _lines("catalog.jsonl"))


def catalogue(count: int, *, prefix: str = "b") -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Yield (item id, fields); ids are distinct, and from the second round on so are titles."""
    for number, fields in enumerate(islice(cycle(films()), count)):
        lap = number // len(films())
        title = f"{fields['title']} {lap}" if lap else fields["title"]
        yield f"{prefix}{number}", {**fields, "title": title, **_unread(number)}


def _unread(number: int) -> Mapping[str, Json]:
    """Return what a real feed carries besides: nothing of meaning, but it has to be parsed."""
    return {
        "votes": 1_000 + number,
        "rating": 6.4,
        "runtime_minutes": 112,
        "poster": f"posters/large/{number:08d}.jpg",
        "stills": [f"stills/{number:08d}-{still}.jpg" for still in range(2)],
    }


def produce(
    bootstrap_servers: str, topic_prefix: str, count: int, *, version: int = 1, prefix: str = "b"
) -> None:
    """Put `count` items on `catalog.items`; returns once all are acknowledged."""
    with CatalogProducer(bootstrap_servers, topic_prefix=topic_prefix) as producer:
        for item_id, fields in catalogue(count, prefix=prefix):
            producer.upsert(item_id, version, fields)
        producer.flush(timeout=120)


def write_catalogue(path: Path, count: int) -> None:
    """Write the first items of `catalogue` as JSON lines."""
    lines = ({"item_id": item_id, **fields} for item_id, fields in catalogue(count))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def write_answers(path: Path, count: int) -> None:
    """Write recorded knowledge of the same items as JSON lines."""
    lines = (
        {"item_id": f"b{number}", "knowledge": knowledge()[number % len(knowledge())]}
        for number in range(count)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def document(number: int) -> Document:
    """Return a document as it is after content and knowledge arrived."""
    fields = films()[number % len(films())]
    fingerprint = content_fingerprint({**fields, "n": number})
    return Document(
        content=Content(1, fields, fingerprint, EVENT_TIME_MS),
        individual=Factors(
            1,
            EVENT_TIME_MS,
            knowledge()[number % len(films())],
            Provenance("bench-model", "0123456789abcdef", fingerprint, 300, 120),
            EVENT_TIME_MS,
        ),
    )
