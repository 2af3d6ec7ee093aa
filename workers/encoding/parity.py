"""The parity probe: does this process's encoder still give the vectors a space was made with?

Another torch build, wrong weights or a truncated tokenizer would mix vectors that must never meet.
A lane probes at start and refuses to write on a mismatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from workers.encoding.text_encoder import TextEncoder

GOLDEN_TEXTS = (
    "Metropolis (1927)",
    "M",
    "The Lord of the Rings: The Fellowship of the Ring (2001). Adventure, Fantasy.",
    "Spirited Away. 千と千尋の神隠し. Animation, Family. directed by Hayao Miyazaki.",
    "bleak, rain-soaked and slow-burning; dread rather than gore",
    "Wireless noise-cancelling headphones, 30 h battery, USB-C, matte black.",
    "¿Dónde está la biblioteca? Ünïcödé — naïve café №5 🙂",
    "a long text to reach the limit of the model " * 60,
)
"""Short, long (truncated), accented, non-Latin and ordinary: ways in which encoders differ."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Texts and the vectors that a space's encoder gave for them: `vectors` is (n, d) float32."""

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def record(cls, encoder: TextEncoder, texts: Sequence[str] = GOLDEN_TEXTS) -> Self:
        """Return what `encoder` gives now."""
        return cls(tuple(texts), encoder.encode(texts))


def probe(encoder: TextEncoder, golden: Golden, threshold: float = 0.999) -> float:
    """Return the lowest cosine to the golden vectors; raises ConfigurationError below `threshold`.

    The texts are encoded one by one, as a lone update would be.
    """
    if encoder.dim != golden.vectors.shape[1]:
        raise ConfigurationError(
            "encoder",
            f"{encoder.encoder_id} gives {encoder.dim} values, "
            f"the space was made with {golden.vectors.shape[1]}",
        )
    vectors = np.concatenate([encoder.encode([text]) for text in golden.texts])
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(golden.vectors, axis=1)
    cosines = np.einsum("nd,nd->n", vectors, golden.vectors) / np.maximum(norms, 1e-12)
    worst = int(cosines.argmin())
    # Written so that NaN fails too.
    if not cosines[worst] >= threshold:
        raise ConfigurationError(
            "encoder",
            f"{encoder.encoder_id} gives cosine {cosines[worst]:.4f} on golden text {worst}, "
            f"needed {threshold}",
        )
    return float(cosines[worst])
