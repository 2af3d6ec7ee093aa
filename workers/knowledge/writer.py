"""The writers' port: who turns a prompt into factorized knowledge, and the ways that can end.

A writer never retries and never judges: the engine retries, the quality gate judges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from schemas.errors import FreshetError
from schemas.knowledge import KnowledgeRequest
from schemas.reasons import Rejection
from workers.knowledge.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """What a writer wrote: one text a factor, what it cost, and the words as they came."""

    factors: Mapping[str, str]
    prompt_tokens: int
    completion_tokens: int
    raw: str


class Rejected(FreshetError):
    """There was an answer, and it cannot be used: an outcome of the lane, never a dead letter.

    `raw` is the answer as it came (kept out of messages and logs: it may hold catalogue text).
    Tokens are what it cost all the same, where the writer knows; 0 where the gate refused it,
    because then the answer itself says so.
    """

    def __init__(self, rejection: Rejection, detail: str, raw: str = "") -> None:
        super().__init__(rejection, detail)
        self.rejection = rejection
        self.detail = detail
        self.raw = raw
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def __str__(self) -> str:
        return f"{self.rejection}: {self.detail}" if self.detail else str(self.rejection)


@runtime_checkable
class Writer(Protocol):
    """Someone who answers prompts; `model` is declared by whoever built it."""

    @property
    def model(self) -> str:
        """The model id that goes into provenance and fingerprints."""

    async def write(self, prompt: Prompt, request: KnowledgeRequest, *, priority: int) -> Answer:
        """Return the answer to `prompt`, which was made from `request`.

        `priority` orders calls at the server, smaller first. Raises Transient (try again later),
        Permanent(refused) (this request can never work) or Rejected (there is no usable answer).
        """

    async def aclose(self) -> None:
        """Give up connections and files; calls in flight end."""
