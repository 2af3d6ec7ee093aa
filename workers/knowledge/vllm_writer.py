"""The writer that asks a vLLM server (or any OpenAI-compatible one) over HTTP.

One call in, one answer or one error out: no retries, no judging. The server is not trusted to
answer in time, within bounds, as a chat completion or by the declared model; messages never
repeat prompt text, because servers put it into their error bodies.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isnan

import httpx
import orjson

from schemas.errors import Permanent, Transient
from schemas.events import clean_text
from schemas.fingerprints import digest
from schemas.knowledge import KnowledgeRequest
from schemas.reasons import Reason, Rejection
from workers.knowledge.prompts import Prompt
from workers.knowledge.served_model import ServedModel, wrong_model
from workers.knowledge.vllm_connection import DEPENDENCY, VllmServer, open_client
from workers.knowledge.vllm_pages import VllmPages
from workers.knowledge.writer import Answer, Rejected

_MAX_BODY_BYTES = 1_048_576
_MAX_RAW_CHARS = 4_000
_LONGEST_RETRY_AFTER_SECONDS = 600.0
"""A server that asks for more is asked again sooner: the partition is held meanwhile."""

_REFUSED_STATUSES = frozenset({400, 413, 422})
_CONFIGURATION_STATUSES: Mapping[int, str] = {
    401: "the API key was not accepted",
    403: "the API key may not use this model",
    # Path and model are the same in every request, so this is never one record's fault.
    404: "no such model or path at this server",
}
_SHARED_BY_ALL_REQUESTS = ("priority", "response_format", "json_schema", "structured", "grammar")
"""A 400 about one of these would come for every record: it is about the server's configuration."""


@dataclass(slots=True)
class WriterStats:
    """Counts since the start, for metrics: how calls ended, and what the answers cost."""

    calls: int = 0
    in_flight: int = 0
    answers: int = 0
    rejected: Counter[Rejection] = field(default_factory=Counter)
    refused: int = 0
    transient: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class VllmWriter:
    """A Writer over POST /v1/chat/completions with a strict JSON schema.

    What it serves is looked up before the first call and after every trouble (it may have been a
    restart), and every answer is checked for who gave it: another model's never passes.
    """

    def __init__(self, server: VllmServer, *, model: str) -> None:
        self.stats = WriterStats()
        self._model = model
        self._server = server
        self._client = open_client(server)
        self._pages = VllmPages(server)
        self._served = ServedModel(self._pages.served_models, model)

    @property
    def model(self) -> str:
        """The model asked for, as declared: never what the server says it is."""
        return self._model

    async def write(
        self,
        prompt: Prompt,
        request: KnowledgeRequest,  # noqa: ARG002  # the prompt holds all of it that a server needs
        *,
        priority: int,
    ) -> Answer:
        """Return the server's answer; raises Transient, Permanent(refused) or Rejected."""
        stats, started = self.stats, time.monotonic()
        stats.calls += 1
        stats.in_flight += 1
        try:
            answer = await self._ask(prompt, priority)
        except Transient:
            stats.transient += 1
            self._served.doubt()
            raise
        except Permanent:
            stats.refused += 1
            raise
        except Rejected as rejected:
            stats.rejected[rejected.rejection] += 1
            raise
        finally:
            stats.in_flight -= 1
            stats.seconds += time.monotonic() - started
        stats.answers += 1
        stats.prompt_tokens += answer.prompt_tokens
        stats.completion_tokens += answer.completion_tokens
        return answer

    async def aclose(self) -> None:
        """Close every connection; the server aborts what it was still writing."""
        await self._client.aclose()
        await self._pages.aclose()

    async def _ask(self, prompt: Prompt, priority: int) -> Answer:
        try:
            async with asyncio.timeout(self._server.call_seconds):
                await self._served.require()
                status, headers, body = await self._post(self._payload(prompt, priority))
                if status == httpx.codes.NOT_FOUND:
                    # Most likely the model is gone: then this says which one is there instead.
                    self._served.doubt()
                    await self._served.require()
        except TimeoutError as error:
            limit = self._server.call_seconds
            raise Transient(DEPENDENCY, f"no whole answer within {limit:g} s") from error
        except httpx.RequestError as error:
            raise Transient(DEPENDENCY, f"{type(error).__name__}: {str(error)[:200]}") from error
        if status != httpx.codes.OK:
            raise _error_of(status, headers, body)
        return _answer_in(body, prompt.factor_names, self._model)

    async def _post(self, payload: bytes) -> tuple[int, httpx.Headers, bytes]:
        body = bytearray()
        async with self._client.stream(
            "POST",
            "/v1/chat/completions",
            content=payload,
            headers={"Content-Type": "application/json"},
        ) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    raise Transient(DEPENDENCY, f"a response of over {_MAX_BODY_BYTES} bytes")
        return response.status_code, response.headers, bytes(body)

    def _payload(self, prompt: Prompt, priority: int) -> bytes:
        payload: dict[str, object] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": prompt.system},
                *(
                    {"role": role, "content": text}
                    for example in prompt.examples
                    for role, text in zip(("user", "assistant"), example, strict=True)
                ),
                {"role": "user", "content": prompt.user},
            ],
            "max_tokens": prompt.max_tokens,
            **self._server.sampling.parameters(),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "factors", "strict": True, "schema": prompt.schema},
            },
        }
        if self._server.accepts_priority:
            payload["priority"] = priority
        if self._server.cache_salt:
            payload["cache_salt"] = self._server.cache_salt
        return orjson.dumps(payload)


def _error_of(status: int, headers: httpx.Headers, body: bytes) -> Transient | Permanent:
    if status in _CONFIGURATION_STATUSES:
        return Transient(DEPENDENCY, f"HTTP {status}: {_CONFIGURATION_STATUSES[status]}")
    if status not in _REFUSED_STATUSES:
        wish = _retry_after_seconds(headers.get("retry-after"))
        return Transient(DEPENDENCY, f"HTTP {status}", retry_after_seconds=wish)
    said = body[:2_000].decode("utf-8", "replace").lower()
    for subject in _SHARED_BY_ALL_REQUESTS:
        if subject in said:
            return Transient(DEPENDENCY, f"HTTP {status}: the server objects to {subject}")
    if "context length" in said or "max_model_len" in said:
        return Permanent(Reason.REFUSED, f"HTTP {status}: longer than the model's context")
    # The words may hold the prompt; the digest still tells equal complaints from different ones.
    return Permanent(Reason.REFUSED, f"HTTP {status}: complaint {digest(body)} ({len(body)} bytes)")


def _retry_after_seconds(header: str | None) -> float | None:
    """Return the wish in a Retry-After header (seconds or a date), bounded; None if unreadable."""
    if header is None:
        return None
    try:
        wish = float(header)
    except ValueError:
        try:
            wish = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if isnan(wish) else min(max(wish, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def _answer_in(body: bytes, names: tuple[str, ...], declared: str) -> Answer:
    """Return the answer in a 200 response; raises Transient or Rejected.

    Transient when it is no chat completion, or another model's; one that does not say whose it is
    passes.
    """
    try:
        completion = orjson.loads(body)
        choice = completion["choices"][0]
        content, ending = choice["message"].get("content"), choice.get("finish_reason")
        refused, author = choice["message"].get("refusal"), completion.get("model")
        usage = completion.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Transient(DEPENDENCY, "HTTP 200 without a chat completion in it") from error
    if isinstance(author, str) and author != declared:
        raise wrong_model("answered as", author, declared)
    if ending in ("abort", "error"):
        raise Transient(DEPENDENCY, f"the server ended the answer: {ending}")
    text = content if isinstance(content, str) else ""
    raw = text[:_MAX_RAW_CHARS]
    try:
        if ending == "length":
            raise Rejected(Rejection.TRUNCATED, f"cut off after {tokens[1]} tokens", raw)
        if refused or ending == "content_filter":
            raise Rejected(Rejection.REFUSAL, "the server says that the model declined", raw)
        return Answer(factors_in(text, names), *tokens, raw)
    except Rejected as rejected:
        rejected.prompt_tokens, rejected.completion_tokens = tokens
        raise


def factors_in(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return the texts of the asked factors in an answer, cleaned; raises Rejected."""
    raw = text[:_MAX_RAW_CHARS]
    try:
        texts = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        unfinished = text.lstrip().startswith("{") and not text.rstrip().endswith("}")
        code = Rejection.TRUNCATED if unfinished else Rejection.NOT_JSON
        raise Rejected(code, f"{len(text)} characters that do not parse", raw) from error
    if not isinstance(texts, dict):
        raise Rejected(Rejection.NOT_JSON, f"JSON, but {type(texts).__name__}", raw)
    missing = [name for name in names if not isinstance(texts.get(name), str)]
    if missing:
        raise Rejected(Rejection.MISSING_FACTOR, f"no text for {', '.join(missing)}", raw)
    return {name: clean_text(texts[name]) for name in names}
