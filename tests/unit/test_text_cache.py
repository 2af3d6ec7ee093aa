"""The cache of encoded texts: nothing is encoded twice, and nothing is made up."""

import numpy as np

from tests.fakes.encoding import HashEncoder
from workers.encoding.text_cache import CachedEncoder, TextCache


class CountingEncoder(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def encode(self, texts):
        self.asked.append(list(texts))
        return super().encode(texts)


def cached(directory, encoder) -> tuple[CachedEncoder, TextCache]:
    cache = TextCache(directory, encoder.encoder_id, encoder.dim)
    return CachedEncoder(encoder, cache), cache


def test_texts_are_encoded_once_even_by_the_next_process(tmp_path):
    encoder = CountingEncoder()
    first, cache = cached(tmp_path, encoder)

    vectors = first.encode(["a", "b", "a"])
    cache.flush()
    again, _ = cached(tmp_path, encoder)
    more = again.encode(["c", "b", "a"])

    assert encoder.asked == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(vectors, HashEncoder().encode(["a", "b", "a"]).astype("f2"))
    np.testing.assert_array_equal(more[1:], vectors[1:])


def test_vectors_of_another_encoder_are_not_taken(tmp_path):
    one, other = CountingEncoder(), CountingEncoder()
    other.encoder_id = "another"
    first, cache = cached(tmp_path, one)
    first.encode(["a"])
    cache.flush()

    second, _ = cached(tmp_path, other)
    second.encode(["a"])

    assert other.asked == [["a"]]


def test_a_broken_file_costs_only_its_texts(tmp_path):
    encoder = CountingEncoder()
    for text in ("a", "b"):
        writer, cache = cached(tmp_path, encoder)
        writer.encode([text])
        cache.flush()
    broken = min((tmp_path / encoder.encoder_id).glob("*.npy"))
    broken.write_bytes(broken.read_bytes()[:-5])
    encoder.asked.clear()

    reader, _ = cached(tmp_path, encoder)
    reader.encode(["a", "b"])

    assert [len(asked) for asked in encoder.asked] == [1]


def test_a_directory_that_cannot_be_written_to_keeps_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    encoder = CountingEncoder()
    writer, cache = cached(blocked, encoder)

    vectors = writer.encode(["a"])
    cache.flush()

    assert vectors.shape == (1, encoder.dim)


def test_no_texts_give_no_vectors(tmp_path):
    encoder, _ = cached(tmp_path, CountingEncoder())

    assert encoder.encode([]).shape == (0, encoder.dim)
