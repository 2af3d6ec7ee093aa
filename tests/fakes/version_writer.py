"""A Writer whose texts say which version they were asked for, so that tests can tell them apart.

Deterministic: the same request gets the same answer. In process it is scripted through its
arguments; in a lane's own process (`FRESHET_KNOWLEDGE__WRITER=tests.fakes.version_writer:...`)
through the environment: VERSION_WRITER_LATENCY_MS, VERSION_WRITER_CALLS (a file that every call
appends a line to: entity, version, ms since the epoch) and VERSION_WRITER_MOOD (a file that says
how calls go while it exists: down, hang, garbage, or hold, which answers once it is gone).
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.knowledge import KnowledgeRequest
from tests.fakes.answers import factor_text
from workers.knowledge.prompts import Prompt
from workers.knowledge.shared_prompt import ITEMS
from workers.knowledge.titles import ITEM
from workers.knowledge.writer import Answer

_LOOK_SECONDS = 0.02


class VersionWriter:
    """`failures` are raised by the next calls, one each, before anybody is answered.

    While `gate` is clear, calls wait: a test can hold any number of them in flight. Of the items in
    `garbled` a shared answer says nothing that could be used.
    """

    def __init__(
        self,
        *,
        model: str = "version-writer",
        latency_seconds: float | None = None,
        failures: Iterable[Exception] = (),
    ) -> None:
        self._model = model
        self._latency_seconds = (
            float(os.environ.get("VERSION_WRITER_LATENCY_MS", "0")) / 1000
            if latency_seconds is None
            else latency_seconds
        )
        self._call_log = os.environ.get("VERSION_WRITER_CALLS")
        self._mood_file = os.environ.get("VERSION_WRITER_MOOD")
        self.failures = deque(failures)
        self.requests: list[KnowledgeRequest] = []
        self.prompts: list[Prompt] = []
        self.priorities: list[int] = []
        self.garbled: set[str] = set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    @property
    def model(self) -> str:
        return self._model

    async def write(self, prompt: Prompt, request: KnowledgeRequest, *, priority: int) -> Answer:
        self.requests.append(request)
        self.prompts.append(prompt)
        self.priorities.append(priority)
        self._log(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await asyncio.sleep(self._latency_seconds)
        finally:
            self.in_flight -= 1
        if self.failures:
            raise self.failures.popleft()
        while (mood := self._mood()) == "hold":
            await asyncio.sleep(_LOOK_SECONDS)
        if mood == "down":
            raise Transient("vllm", "the version writer is down")
        if mood == "hang":
            await asyncio.Event().wait()
        if mood == "garbage":
            return Answer(dict.fromkeys(prompt.factor_names, "la la la la la"), 1, 1, "garbage")
        factors = self._factors(prompt, request)
        tokens = len(prompt.system + prompt.user) // 4, sum(map(len, factors.values())) // 4
        return Answer(factors, *tokens, str(factors))

    async def aclose(self) -> None:
        self.closed = True

    def _factors(self, prompt: Prompt, request: KnowledgeRequest) -> dict[str, str]:
        if ITEMS not in request.fields:
            subject = _subject(request)
            return {name: factor_text(name, subject) for name in prompt.factor_names}
        ids = ids_shared(request)
        numbers = {name: int(name.rpartition("_")[2]) for name in prompt.factor_names}
        return {
            name: "la la la la la la"
            if ids[number - 1] in self.garbled
            else factor_text(name, f"item:{ids[number - 1]}")
            for name, number in numbers.items()
        }

    def _mood(self) -> str:
        if self._mood_file is None:
            return ""
        try:
            return Path(self._mood_file).read_text().strip()
        except FileNotFoundError:
            return ""

    def _log(self, request: KnowledgeRequest) -> None:
        if self._call_log is not None:
            # One short append a call: whole lines, even from several processes.
            with Path(self._call_log).open("a") as log:
                log.write(f"{request.entity} {request.version} {time.time_ns() // 1_000_000}\n")


def ids_shared(request: KnowledgeRequest) -> list[str]:
    """Return the ids of the items that a shared call is about; none where it is no such call."""
    listed = request.fields.get(ITEMS, [])
    assert isinstance(listed, Sequence)
    return [str(entry[ITEM]) for entry in listed if isinstance(entry, Mapping)]


def _subject(request: KnowledgeRequest) -> str:
    entity = request.entity
    if entity.kind is EntityKind.USER:
        # Their versions are times. No answer may hold so long a number, nor what looks like a turn
        # of a dialogue: "user:".
        return f"{entity.id} in revision {request.version:,}"
    return f"{entity} as of version {request.version}"
