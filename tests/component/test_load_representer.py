"""The encoder of a raw space is the one it was made with, whatever the settings say."""

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.causal_models import DIM, make_model
from workers.adaptors.raw import raw_adaptor
from workers.adaptors.space_files import save_space
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.load_representer import load_representer, representer_on_demand
from workers.encoding.parity import Golden

PARTS = ("title", "content")


@pytest.fixture
def choice(tmp_path) -> EncoderChoice:
    return EncoderChoice(encoder=str(make_model(tmp_path / "model")))


@pytest.fixture
def spaces(tmp_path, choice) -> Path:
    encoder = load_encoder(choice)
    adaptor = raw_adaptor(encoder.encoder_id, PARTS, encoder.dim)
    save_space(tmp_path / "spaces", adaptor, Golden.record(encoder, ("w1", "w2 w3")))
    return tmp_path / "spaces"


def test_a_causal_models_raw_space_is_written_by_that_model(spaces, choice):
    representer = load_representer(spaces, choice, refuse_below=0.999)

    values, mask, encoded = representer.represent([(None, None, ("w1 w2", None))])

    assert (spaces / "cex-parts" / "space.json").exists()
    assert representer.parts == PARTS
    assert values.shape == (1, 2, DIM)
    assert mask.tolist() == [[True, False]]
    assert encoded == 1


def test_another_encoder_is_refused_by_the_name_of_the_setting(spaces, tmp_path):
    other = EncoderChoice(encoder=str(make_model(tmp_path / "other", seed=2)))

    with pytest.raises(ConfigurationError, match=r"ENCODE__ENCODER.*was made with cex-llama"):
        load_representer(spaces, other, refuse_below=0.999)


def test_an_encoder_on_demand_is_refused_when_a_text_comes(spaces, choice, tmp_path):
    other = EncoderChoice(encoder=str(make_model(tmp_path / "other", seed=2)))
    rows = [(None, None, ("w1 w2", None))]

    on_demand = representer_on_demand(spaces, other, refuse_below=0.999)
    at_once = load_representer(spaces, choice, refuse_below=0.999)
    late = representer_on_demand(spaces, choice, refuse_below=0.999)

    np.testing.assert_array_equal(late.represent(rows).values, at_once.represent(rows).values)
    with pytest.raises(ConfigurationError, match="was made with"):
        on_demand.represent(rows)
