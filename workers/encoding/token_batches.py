"""Token batches: texts cut into batches bounded by padded tokens, longest first. Pure numpy.

Short texts are not padded to the length of long ones, and a batch never outgrows the processor's
caches. Encoders share this, so that all of them treat a text alone and among others alike.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CHARS = 8_192
"""Characters of a text that an encoder looks at: far more than any token limit, and it bounds the
tokenizer's work."""


class TokenBatch(NamedTuple):
    """`ids` and `mask` are (B, T) int64, padded on the right; line i is of text `rows[i]`."""

    rows: list[int]
    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]


def token_batches(tokens: Sequence[Sequence[int]], max_tokens: int) -> Iterator[TokenBatch]:
    """Yield every text in one batch of at most `max_tokens` padded tokens, or alone in one.

    No text may be without tokens: raises ValueError.
    """
    rows = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    if rows and not tokens[rows[-1]]:
        raise ValueError(f"text {rows[-1]} has no tokens")
    start = 0
    while start < len(rows):
        size = max(1, max_tokens // len(tokens[rows[start]]))
        yield _padded(rows[start : start + size], tokens)
        start += size


def _padded(rows: list[int], tokens: Sequence[Sequence[int]]) -> TokenBatch:
    shape = (len(rows), len(tokens[rows[0]]))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(tokens[row])] = tokens[row]
        mask[line, : len(tokens[row])] = 1
    return TokenBatch(rows, ids, mask)


def readable(text: str) -> str:
    """Return `text` cut to MAX_CHARS and without lone surrogates, on which tokenizers panic."""
    return text[:MAX_CHARS].encode("utf-8", "replace").decode()
