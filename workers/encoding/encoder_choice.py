"""Which encoder a deployment runs, and how: what its settings say. Imports no library."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["float32", "bfloat16"]

MINILM = "minilm"

TOKEN_LIMIT = 500
"""Tokens of a text that a causal model reads: the LEARN paper's limit."""


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """`encoder` is `minilm`, or the folder of a causal language model in Hugging Face form."""

    encoder: str = MINILM
    precision: Precision = "float32"
    token_limit: int = TOKEN_LIMIT
    threads: int = 1
