"""The writer of the measured lane: real calls, and recorded answers in place of what came back.

The small model's answers are nearly all refused, and a refusal costs a second call: the lane would
be measured by the model's mistakes, and no knowledge would leave it. So the prompt, the call and
its tokens are the product's, and what then passes the gate and goes out is a recorded answer.
"""

import os
import time
from pathlib import Path

from schemas.knowledge import KnowledgeRequest
from streams.llm_server import sampling_of
from streams.settings import Settings
from tests.bench.films import knowledge
from workers.knowledge.prompts import Prompt
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_writer import VllmWriter
from workers.knowledge.writer import Answer, Rejected

CALLS_FILE = "LLM_BENCH_CALLS"
"""Environment variable: where the seconds of each call go, a line each."""


class StandInWriter:
    """A Writer, made by the lane as `tests.bench.llm_writer:StandInWriter`."""

    def __init__(self, *, model: str) -> None:
        settings = Settings.load().knowledge
        self._writer = VllmWriter(
            VllmServer(
                settings.vllm_url,
                settings.vllm_api_key.get_secret_value(),
                call_seconds=settings.call_seconds,
                connections=settings.in_flight,
                accepts_priority=settings.vllm_accepts_priority,
                cache_salt=settings.vllm_cache_salt.get_secret_value(),
                sampling=sampling_of(settings),
            ),
            model=model,
        )
        self._calls = Path(os.environ[CALLS_FILE])

    @property
    def model(self) -> str:
        """The model that is called."""
        return self._writer.model

    async def write(self, prompt: Prompt, request: KnowledgeRequest, *, priority: int) -> Answer:
        """Return the recorded answer about the film whose number the request's id ends with."""
        began = time.perf_counter()
        tokens = 0, 0
        try:
            answer = await self._writer.write(prompt, request, priority=priority)
            tokens = answer.prompt_tokens, answer.completion_tokens
        except Rejected:
            pass  # it was called and paid for all the same
        seconds = time.perf_counter() - began
        with self._calls.open("a", encoding="utf-8") as calls:
            calls.write(f"{seconds}\n")
        number = int(request.entity.id.rpartition("-")[2])
        return Answer(knowledge()[number], *tokens, "")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._writer.aclose()
