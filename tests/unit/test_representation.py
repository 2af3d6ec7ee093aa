"""Part texts are derived the same way everywhere, and only what changed is encoded."""

import numpy as np
import pytest

from schemas.fingerprints import Json
from schemas.knowledge import Content, Document, Factors, Provenance, Removed
from tests.fakes.encoding import DIM, PARTS, HashEncoder, text_vector
from workers.encoding.representation import DEFAULT_PARTS, Representer, part_texts

FILM: dict[str, Json] = {
    "title": "Heat",
    "year": 1995,
    "genres": ["Crime", "Drama"],
    "director": "Michael Mann",
    "actors": ["Al Pacino", "Robert De Niro"],
    "plot": "A thief and a detective.",
}


def content(**fields: Json) -> Content:
    return Content(1, fields, fingerprint="f", event_time_ms=0)


def factors(**texts: str) -> Factors:
    provenance = Provenance("model", "prompt", "fingerprint")
    return Factors(1, 0, texts, provenance, event_time_ms=0)


def test_title_and_content_are_two_texts_and_the_title_is_told_once():
    title, told, *rest = part_texts(Document(content=content(**FILM)), DEFAULT_PARTS)

    assert title == "Heat"
    assert told == "1995 | Crime, Drama | Michael Mann | Al Pacino, Robert De Niro"
    assert rest == [None] * 6


def test_the_order_of_the_fields_does_not_matter():
    backwards = dict(reversed(FILM.items()))

    assert part_texts(Document(content=content(**backwards)), PARTS) == part_texts(
        Document(content=content(**FILM)), PARTS
    )


def test_unknown_fields_follow_alphabetically_with_their_names():
    document = Document(content=content(title="T", zoom=3, battery="30 h", brand="Acme", wide=True))

    assert part_texts(document, ("content",)) == ("Acme | battery: 30 h | wide: yes | zoom: 3",)


def test_a_title_alone_leaves_the_content_part_missing():
    document = Document(content=content(title="T", genres=[], year=None))

    assert part_texts(document, PARTS) == ("T", None, None)


def test_factors_are_parts_of_their_own_and_blank_ones_are_missing():
    document = Document(content=content(title="T"), individual=factors(mood=" bleak ", theme="  "))

    assert part_texts(document, ("title", "mood", "theme", "genre")) == ("T", "bleak", None, None)


def test_what_has_no_title_is_told_by_its_factors_alone():
    taste = content(liked=[{"title": "Heat", "signal": "loved"}], disliked=[], year=1995)

    asked, written = Document(content=taste), Document(content=taste, individual=factors(mood="m"))

    assert part_texts(asked, PARTS) == (None, None, None)
    assert part_texts(written, PARTS) == (None, None, "m")


def test_individual_knowledge_goes_before_the_groups():
    document = Document(collective=factors(mood="of the group"), individual=factors(mood="its own"))

    assert part_texts(document, ("mood",)) == ("its own",)


def test_a_removed_entity_has_no_parts():
    document = Document(content=content(title="T"), individual=factors(mood="bleak"))

    merged = document.merge(Document(removed=Removed(2, 0)))

    assert part_texts(merged, PARTS) == (None, None, None)


def test_only_parts_whose_text_changed_are_encoded():
    encoder = HashEncoder()
    representer = Representer(encoder, PARTS)
    before = ("T", "old", "bleak")
    raw = representer.represent([(None, None, before)]).values[0].astype(np.float16)
    encoder.texts.clear()

    got = representer.represent([(before, raw, ("T", "new", "bleak"))])

    assert encoder.texts == ["new"]
    assert got.encoded_count == 1
    np.testing.assert_array_equal(
        got.values, representer.represent([(None, None, ("T", "new", "bleak"))]).values
    )


def test_a_flat_raw_vector_serves_as_well_as_one_by_parts():
    encoder = HashEncoder()
    representer = Representer(encoder, PARTS)
    texts = ("T", "c", "m")
    values, _, _ = representer.represent([(None, None, texts)])
    encoder.texts.clear()

    again = representer.represent([(texts, values[0].reshape(-1), texts)])

    assert encoder.texts == []
    np.testing.assert_array_equal(again.values, values)


def test_each_distinct_text_of_a_batch_is_encoded_once():
    encoder = HashEncoder()

    got = Representer(encoder, PARTS).represent(
        [(None, None, ("T", "same", "same")), (None, None, ("U", "same", None))]
    )

    assert sorted(encoder.texts) == ["T", "U", "same"]
    assert got.encoded_count == 3
    np.testing.assert_array_equal(got.values[0, 1], got.values[1, 1])


def test_a_part_that_is_gone_is_zeros_and_unmasked():
    encoder = HashEncoder()
    representer = Representer(encoder, PARTS)
    before = ("T", "c", "bleak")
    raw = representer.represent([(None, None, before)]).values[0]

    got = representer.represent([(before, raw, ("T", "c", None))])

    assert got.mask.tolist() == [[True, True, False]]
    assert not got.values[0, 2].any()
    assert got.encoded_count == 0


def test_a_text_that_was_never_encoded_is_encoded_although_it_did_not_change():
    encoder = HashEncoder()
    texts = ("T", "c", "m")

    got = Representer(encoder, PARTS).represent([(texts, np.zeros((3, DIM), np.float16), texts)])

    assert got.encoded_count == 3
    assert got.values.any(axis=2).all()


def test_values_are_of_the_precision_that_is_stored():
    values, _, _ = Representer(HashEncoder(), PARTS).represent([(None, None, ("T", None, None))])

    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[0, 0], text_vector("T").astype(np.float16))


def test_nothing_to_represent_gives_empty_arrays():
    values, mask, encoded = Representer(HashEncoder(), PARTS).represent([])

    assert values.shape == (0, 3, DIM)
    assert mask.shape == (0, 3)
    assert encoded == 0


def test_raw_parts_of_another_width_are_refused():
    texts = ("T", None, None)

    with pytest.raises(ValueError, match="reshape"):
        Representer(HashEncoder(), PARTS).represent([(texts, np.ones(7, np.float16), texts)])
