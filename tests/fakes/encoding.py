"""An encoder, an adaptor and a set of spaces small enough to reason about."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np

from schemas.entities import EntityKind
from schemas.spaces import Space
from workers.adaptors.raw import raw_adaptor
from workers.encoding.representation import Representer

DIM = 8
PARTS = ("title", "content", "mood")
ENCODER_ID = "hash-encoder"


class HashEncoder:
    """A TextEncoder: a text's vector depends on every letter of it. `texts` is what was encoded."""

    encoder_id = ENCODER_ID
    dim = DIM

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return np.stack([text_vector(text) for text in texts])


def text_vector(text: str) -> np.ndarray:
    digest = blake2b(text.encode(), digest_size=DIM).digest()
    vector = np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
    return vector / np.linalg.norm(vector)


class SumAdaptor:
    """An Adaptor: the sum of the parts that are present."""

    def __init__(
        self,
        name: str = "sum",
        kinds: tuple[EntityKind, ...] = (EntityKind.ITEM,),
        user_vectors: Literal["histories", "knowledge"] = "histories",
    ) -> None:
        self.space = Space(
            name=name,
            kinds=kinds,
            encoder_id=ENCODER_ID,
            adaptor_id="raw",
            parts=PARTS,
            part_dim=DIM,
            dim=DIM,
            user_vectors=user_vectors,
        )
        self.calls = 0

    def apply(self, parts: np.ndarray, mask: np.ndarray) -> np.ndarray:
        self.calls += 1
        return (parts * mask[:, :, None]).sum(axis=1)


class FakeSpaces:
    """A SpacesPort whose adaptors a test may change between batches."""

    def __init__(self, *extra: SumAdaptor) -> None:
        raw = raw_adaptor(ENCODER_ID, PARTS, DIM, name="raw")
        self.raw = raw.space
        self.written = [raw, *extra]

    def adaptors(self) -> Sequence:
        return tuple(self.written)


def representer(encoder: HashEncoder) -> Representer:
    return Representer(encoder, PARTS)
