"""How a model picks its words: part of how a server is asked, not of what is asked. Pure.

It is in no prompt id and no fingerprint: a change of it asks nothing again by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of a call, as vLLM names them; None leaves one to the server's own default.

    The penalties are for models that go round in circles: the frequency penalty counts the words of
    the answer alone, the repetition penalty those of the prompt too.
    """

    temperature: float = 0.0
    top_p: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None

    def parameters(self) -> Mapping[str, float]:
        """Return what a request says; a server that knows no penalties is told of none."""
        chosen = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
        }
        return {name: value for name, value in chosen.items() if value is not None}


LIKELIEST = Sampling()
"""The likeliest word, always."""
