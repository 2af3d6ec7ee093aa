"""Token batches: every text once, padded as little as the bound allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.encoding.token_batches import MAX_CHARS, readable, token_batches

TOKENS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), max_size=30)


@given(TOKENS, st.integers(1, 40))
def test_every_text_is_in_one_batch_within_the_bound_or_alone(tokens, bound):
    batches = list(token_batches(tokens, bound))

    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(tokens)))
    for rows, ids, mask in batches:
        assert ids.size <= bound or len(rows) == 1
        assert [line[kept == 1].tolist() for line, kept in zip(ids, mask, strict=True)] == [
            tokens[row] for row in rows
        ]
        assert not ids[mask == 0].any()


def test_texts_of_like_length_go_together():
    tokens = [[1] * length for length in (2, 9, 2, 9)]

    batches = list(token_batches(tokens, 18))

    assert [batch.rows for batch in batches] == [[1, 3], [0, 2]]
    assert all(batch.mask.all() for batch in batches)


def test_arrays_are_int64_as_models_want_them():
    (batch,) = token_batches([[5]], 8)

    assert batch.ids.dtype == batch.mask.dtype == np.int64


def test_a_text_without_tokens_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="text 1 has no tokens"):
        list(token_batches([[1], []], 8))


def test_what_tokenizers_cannot_read_is_replaced_and_the_endless_is_cut():
    assert readable("a\ud800b") == "a?b"
    assert len(readable("x" * 100_000)) == MAX_CHARS
