"""The one place where an encoder is chosen and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from workers.encoding.causal_encoder import CausalEncoder
from workers.encoding.encoder_choice import MINILM, EncoderChoice
from workers.encoding.text_encoder import MiniLmEncoder, TextEncoder

EncoderLoader: TypeAlias = Callable[[EncoderChoice], TextEncoder]
"""How whoever needs an encoder gets it; raises ConfigurationError."""


def load_encoder(choice: EncoderChoice) -> TextEncoder:
    """Return the chosen encoder; takes seconds. Raises ConfigurationError."""
    if choice.encoder == MINILM:
        return MiniLmEncoder.load(choice.threads, precision=choice.precision)
    return CausalEncoder.load(
        Path(choice.encoder),
        threads=choice.threads,
        precision=choice.precision,
        token_limit=choice.token_limit,
    )
