"""A causal language model as encoder, on tiny random ones: no download, no weights of anybody's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaModel

from schemas.errors import ConfigurationError
from tests.causal_models import DIM, WORDS, make_model
from workers.encoding.causal_encoder import CausalEncoder
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.parity import Golden, probe

TEXTS = [" ".join(WORDS[start : start + length]) for start in range(8) for length in (1, 3, 9, 40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(folder) -> CausalEncoder:
    return CausalEncoder.load(folder)


def test_vectors_are_unit_float32_rows_of_the_models_width(encoder):
    vectors = encoder.encode(TEXTS)

    assert vectors.shape == (len(TEXTS), DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_vector_is_the_mean_of_the_last_hidden_states(encoder, folder):
    model = LlamaModel.from_pretrained(folder)
    ids = torch.tensor([[2, 3, 4]])
    with torch.inference_mode():
        mean = model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy()

    vector = encoder.encode(["w0 w1 w2"])[0]

    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-4)


def test_padding_does_not_change_a_vector(encoder):
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])

    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-3)
    assert np.einsum("nd,nd->n", encoder.encode(TEXTS), alone).min() > 0.999


def test_equal_texts_share_one_vector_in_the_order_asked_for(encoder):
    vectors = encoder.encode(["w1", "w2", "w1"])

    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(vectors[1], encoder.encode(["w2"])[0], atol=1e-4)


def test_a_text_is_cut_at_the_token_limit(folder):
    encoder = CausalEncoder.load(folder, token_limit=3)

    long, cut, longer = encoder.encode(["w1 w2 w3 w4 w5", "w1 w2 w3", "w1 w2"])

    np.testing.assert_allclose(long, cut, atol=1e-4)
    assert cut @ longer < 0.999


def test_the_limit_is_never_above_the_models_own(encoder):
    assert encoder.encoder_id.endswith("-mean64")
    assert np.isfinite(encoder.encode(["w1 " * 500])).all()


def test_texts_without_tokens_and_hostile_ones_are_encoded_too(encoder):
    vectors = encoder.encode(["", " ", "\ud800 lone surrogate", "a" * 200_000])

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, DIM)


def test_the_id_is_of_the_content_and_not_of_the_path(encoder, folder, tmp_path):
    same = CausalEncoder.load(shutil.copytree(folder, tmp_path / "same"))
    (tmp_path / "same" / "README.md").write_text("no part of a vector")
    noted = CausalEncoder.load(tmp_path / "same")
    other = CausalEncoder.load(make_model(tmp_path / "other", seed=2))
    shorter = CausalEncoder.load(folder, token_limit=5)

    assert encoder.encoder_id.startswith("cex-llama-")
    assert same.encoder_id == noted.encoder_id == encoder.encoder_id
    assert len({encoder.encoder_id, other.encoder_id, shorter.encoder_id}) == 3


def test_the_parity_probe_knows_it_and_refuses_other_weights(encoder, tmp_path):
    golden = Golden.record(encoder, TEXTS)

    assert probe(encoder, golden) > 0.9999
    with pytest.raises(ConfigurationError, match="cosine"):
        probe(CausalEncoder.load(make_model(tmp_path / "other", seed=2)), golden)


def test_the_setting_chooses_it_by_its_folder(folder, encoder):
    chosen = load_encoder(EncoderChoice(encoder=str(folder), token_limit=20))

    assert isinstance(chosen, CausalEncoder)
    assert chosen.encoder_id == encoder.encoder_id.replace("mean64", "mean20")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no weights"):
        load_encoder(EncoderChoice(encoder=str(tmp_path / "nowhere")))


def test_a_folder_that_is_no_model_is_refused(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))

    with pytest.raises(ConfigurationError, match="broken"):
        CausalEncoder.load(broken)
