"""Conditions that select knowledge to write anew: `prompt!=ID`, `model!=ID`, `age>D`. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.errors import InvalidInput
from schemas.knowledge import Document
from schemas.reasons import Reason

CURRENT = "current"
"""Stands for the prompt or model that the settings name."""

_CONDITION = re.compile(r"(?:(prompt|model)\s*!=\s*(\S+))|(?:age\s*>\s*(\d+(?:\.\d+)?)([smhd]))")
_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Condition:
    """`subject` differs from `value`, or for age: is more than `older_than_ms`."""

    subject: Literal["prompt", "model", "age"]
    value: str = ""
    older_than_ms: int = 0

    def holds(self, document: Document, now_ms: int) -> bool:
        """Whether the knowledge of a live document is to be written anew.

        An entity without knowledge of its own has neither that prompt nor that model: it holds.
        """
        factors = document.individual
        if factors is None:
            return True
        match self.subject:
            case "prompt":
                return factors.provenance.prompt_id != self.value
            case "model":
                return factors.provenance.model != self.value
            case "age":
                return now_ms - factors.generated_at_ms > self.older_than_ms


def parse_conditions(
    texts: Sequence[str], *, current_prompt: str, current_model: str
) -> tuple[Condition, ...]:
    """Return the conditions that `texts` spell; raises InvalidInput."""
    return tuple(_parse(text, current_prompt, current_model) for text in texts)


def _parse(text: str, current_prompt: str, current_model: str) -> Condition:
    matched = _CONDITION.fullmatch(text.strip())
    if matched is None:
        raise InvalidInput(Reason.WRONG_TYPE, f"{text!r} is none of prompt!=ID, model!=ID, age>30d")
    subject, value, amount, unit = matched.groups()
    if subject == "prompt":
        return Condition("prompt", current_prompt if value == CURRENT else value)
    if subject == "model":
        return Condition("model", current_model if value == CURRENT else value)
    return Condition("age", older_than_ms=round(float(amount) * _MS[unit]))
