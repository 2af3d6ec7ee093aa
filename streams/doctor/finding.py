"""One thing that the doctor looked at."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what to do; it may stand beside a thing that is right."""

    ok: bool
    subject: str
    detail: str
    advice: str = ""


Look: TypeAlias = Callable[[], AsyncIterator[Finding]]
"""Yields findings; may raise FreshetError, which becomes a finding too."""
