"""Catalogue and knowledge files become registers as the lanes would make them."""

import random

import orjson
import pytest

from schemas.entities import EntityKey
from schemas.errors import InvalidInput
from schemas.events import DecodeLimits
from schemas.knowledge import Document
from schemas.reasons import Reason
from streams.catalogue_files import KeySample, catalogue_document, recorded_factors
from tests.fakes.clock import START_MS
from tests.fakes.emitter import FakeEmitter
from tests.fakes.stores import InMemorySeen
from tests.lane_builders import POLICY, items_lane, removed, upserted
from tests.space_builders import film


def read(row: object) -> tuple[EntityKey, Document]:
    line = row if isinstance(row, bytes) else orjson.dumps(row)
    return catalogue_document(line, POLICY, DecodeLimits(), now_ms=START_MS)


async def test_an_event_gives_the_content_that_the_items_lane_emits():
    record = upserted(7, "  Heat\u200b ", year=1995, genres=["Crime", ""], price=3)
    emitter = FakeEmitter()
    lane = items_lane(emitter, InMemorySeen())
    await lane.handle([lane.decode(record, START_MS)])

    key, document = read(record.value)

    assert key == EntityKey.item("42")
    assert document.content == emitter.updates[0].value
    assert document.content.fields == {"genres": ["Crime"], "title": "Heat", "year": 1995}


def test_a_plain_item_reads_as_the_event_would():
    _, event = read(upserted(0, "Heat", year=1995, type="film").value)

    key, plain = read({"item_id": 42, "title": "Heat", "year": 1995, "type": "film", "votes": 7})

    assert key == EntityKey.item("42")
    assert plain == event


def test_a_removal_in_the_file_takes_the_item_out_in_whatever_order_the_lines_come():
    sample = KeySample(10)
    for row in (removed(3).value, upserted(2, "Heat").value, upserted(1, "Dune", id_="7").value):
        sample.add(*read(row))

    assert [str(key) for key, _ in sample.live()] == ["item:7"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", Reason.NOT_JSON),
        ({"title": "Heat"}, Reason.WRONG_TYPE),
        ({"item_id": "4 2", "title": "Heat"}, Reason.INVALID_ID),
        ({"item_id": "42", "title": " "}, Reason.EMPTY_TITLE),
        ({"item_id": "42", "name": "Heat"}, Reason.MISSING_FIELD),
    ],
)
def test_a_line_that_is_no_item_is_refused(row, reason):
    with pytest.raises(InvalidInput) as caught:
        read(row)

    assert caught.value.reason is reason


def test_recorded_knowledge_becomes_factors():
    key, factors = recorded_factors(b'{"item_id": 42, "knowledge": {"mood": "tense"}}')

    assert key == EntityKey.item("42")
    assert factors.factors == {"mood": "tense"}


@pytest.mark.parametrize("line", [b'{"item_id": "42"}', b'{"knowledge": {}}', b"[]"])
def test_a_line_that_is_no_knowledge_is_refused(line):
    with pytest.raises(InvalidInput):
        recorded_factors(line)


def test_the_sample_does_not_depend_on_the_order_and_holds_whole_documents():
    rows = [
        (EntityKey.item(str(n)), film(version, f"Film {n}"))
        for n in range(50)
        for version in (1, 2)
    ]
    samples = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        sample = KeySample(12)
        for row in rows:
            sample.add(*row)
        samples.append(dict(sample.live()))

    assert len(samples[0]) == 12
    assert samples[0] == samples[1] == samples[2]
    # An item whose versions came around others is as whole as any.
    assert all(document == film(2, f"Film {key.id}") for key, document in samples[0].items())
