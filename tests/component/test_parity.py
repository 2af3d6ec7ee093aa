"""The parity probe refuses an encoder that is not the one a space was made with."""

from collections.abc import Sequence

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.fakes.encoding import DIM, HashEncoder
from workers.encoding.parity import Golden, probe


class NoisyEncoder(HashEncoder):
    """Gives wrong vectors for texts that hold `marked`."""

    def __init__(self, marked: str, noise: float) -> None:
        super().__init__()
        self._marked, self._noise = marked, noise

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = super().encode(texts)
        vectors[["M" in text for text in texts], 0] += self._noise
        return vectors


class CallCountingEncoder(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return super().encode(texts)


class WiderEncoder(HashEncoder):
    dim = DIM + 1


def test_the_same_encoder_passes_and_tells_its_lowest_cosine():
    golden = Golden.record(HashEncoder())

    assert probe(HashEncoder(), golden) == pytest.approx(1.0)


def test_rounding_passes():
    golden = Golden.record(HashEncoder())

    assert 0.999 <= probe(NoisyEncoder("M", 1e-3), golden) < 1.0


def test_one_wrong_text_among_many_is_enough_to_refuse():
    golden = Golden.record(HashEncoder(), ["T", "M", "U"])

    with pytest.raises(
        ConfigurationError, match=r"hash-encoder gives cosine 0\.\d+ on golden text 1"
    ):
        probe(NoisyEncoder("M", 0.5), golden)


def test_not_a_number_is_refused():
    golden = Golden.record(HashEncoder(), ["T", "M"])

    with pytest.raises(ConfigurationError, match="cosine nan"):
        probe(NoisyEncoder("M", float("nan")), golden)


def test_an_encoder_of_another_width_is_refused():
    golden = Golden.record(HashEncoder())

    with pytest.raises(ConfigurationError, match="gives 9 values, the space was made with 8"):
        probe(WiderEncoder(), golden)


def test_the_golden_texts_are_encoded_one_by_one():
    encoder = CallCountingEncoder()

    probe(encoder, Golden.record(HashEncoder(), ["T", "U"]))

    assert encoder.calls == [["T"], ["U"]]
