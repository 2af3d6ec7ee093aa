"""Parts of a recorded representation are used again exactly where the text is the same."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.fingerprints import text_fingerprint
from schemas.representation_record import RepresentationRecord
from streams.known_parts import is_of, known_row
from tests.fakes.encoding import DIM, ENCODER_ID, HashEncoder, text_vector
from tests.live_builders import item
from tests.space_builders import PARTS, raw_space
from workers.encoding.representation import Representer


def recorded(*texts: str | None) -> RepresentationRecord:
    present = [text for text in texts if text is not None]
    return RepresentationRecord(
        item(1),
        7,
        ENCODER_ID,
        PARTS,
        tuple(None if text is None else text_fingerprint(text) for text in texts),
        np.stack([text_vector(text) for text in present]).astype(np.float16),
    )


def test_the_same_texts_need_no_encoder():
    encoder = HashEncoder()
    texts = ("Heat", "Heat. Crime.", None)

    values, mask, encoded = Representer(encoder, PARTS).represent(
        [known_row(texts, recorded(*texts))]
    )

    assert encoded == 0
    assert encoder.texts == []
    assert mask.tolist() == [[True, True, False]]
    np.testing.assert_array_equal(values[0, 1], text_vector("Heat. Crime.").astype(np.float16))


def test_only_texts_that_differ_are_encoded_whatever_revision_the_record_is_of():
    encoder = HashEncoder()
    texts = ("Heat", "Heat. Crime.", "tense")

    values, mask, _ = Representer(encoder, PARTS).represent(
        [known_row(texts, recorded("Heat", "Heat. Drama.", None))]
    )

    assert sorted(encoder.texts) == ["Heat. Crime.", "tense"]
    assert mask.all()
    for part, text in enumerate(texts):
        np.testing.assert_array_equal(values[0, part], text_vector(text).astype(np.float16))


def test_without_a_record_everything_is_encoded():
    assert known_row(("Heat", None, None), None) == (None, None, ("Heat", None, None))


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_id": "another"},
        {"names": ("title", "content", "plot")},
        {"parts": np.zeros((1, DIM + 1), np.float16)},
    ],
)
def test_parts_of_another_raw_space_are_told_apart(change):
    record, raw = recorded("Heat", None, None), raw_space().space

    assert is_of(record, raw)
    assert not is_of(replace(record, **change), raw)
