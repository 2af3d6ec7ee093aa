"""The bare server: the lane's prompts, called without a lane."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from deploy.demo.language_model import LanguageModel
from schemas.knowledge import RequestKind
from tests.bench.llm_traffic import Subject
from workers.knowledge.prompts import Domain
from workers.knowledge.vllm_writer import VllmWriter
from workers.knowledge.writer import Rejected

_SALT = "bare"
_CONNECTIONS = 256


class BareCaller:
    """A client on a loop of its own, as a context manager; its connections stay open."""

    def __init__(self, model: LanguageModel, domain: Domain) -> None:
        self._domain = domain
        self._runner = asyncio.Runner()
        server = model.server(connections=_CONNECTIONS, cache_salt=_SALT)
        # The likeliest word, always: both sides then write the same.
        self._server = replace(server, sampling=replace(server.sampling, temperature=0.0))
        self._model = model.model

    def ask_all(self, asked: Sequence[Subject], *, in_flight: int) -> float:
        """Return the seconds from the first call to the last answer; raises as VllmWriter does."""
        return self._runner.run(self._ask_all(asked, in_flight))

    def __enter__(self) -> Self:
        self._writer = VllmWriter(self._server, model=self._model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._writer.aclose())
        self._runner.close()

    async def _ask_all(self, asked: Sequence[Subject], in_flight: int) -> float:
        prompts = [subject.prompt(self._domain) for subject in asked]
        requests = [subject.request(RequestKind.NEW) for subject in asked]
        window = asyncio.Semaphore(in_flight)

        async def ask(number: int) -> None:
            async with window:
                try:
                    await self._writer.write(prompts[number], requests[number], priority=0)
                except Rejected:
                    return  # what it says is nobody's business here

        began = time.perf_counter()
        async with asyncio.TaskGroup() as asking:
            for number in range(len(asked)):
                asking.create_task(ask(number))
        return time.perf_counter() - began
