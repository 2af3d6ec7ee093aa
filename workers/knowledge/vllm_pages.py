"""What a vLLM server says about itself: whether it is well, what it serves, and its figures."""

from dataclasses import dataclass
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Transient
from workers.knowledge.vllm_connection import DEPENDENCY, VllmServer, open_client

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """Figures of a server's metrics page, over all its engines.

    `running` and `waiting` are requests now; the others count tokens since the server's start.
    `looked_up` tokens of prompts were looked for in the prefix cache, `found` of them were there.
    """

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    looked_up: int = 0
    found: int = 0

    @property
    def prefix_hit_rate(self) -> float:
        """The share of prompt tokens that the prefix cache held, 0 when none was looked up."""
        return self.found / self.looked_up if self.looked_up else 0.0

    def since(self, earlier: Self) -> "ServerFigures":
        """Return what was counted after `earlier`; requests are those of now."""
        return ServerFigures(
            self.running,
            self.waiting,
            self.prompt_tokens - earlier.prompt_tokens,
            self.generated_tokens - earlier.generated_tokens,
            self.looked_up - earlier.looked_up,
            self.found - earlier.found,
        )


def read_server_figures(page: str) -> ServerFigures:
    """Return the figures on a metrics page; raises ValueError when it is not vLLM's."""
    sums: dict[str, float] = {}
    # The page has a thousand lines and more, nearly all of histograms, and parsing is slow.
    lines = [line for line in page.splitlines() if line.startswith(_SAMPLES)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name in _SAMPLES:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    missing = [name for name in _SAMPLES if name not in sums]
    if missing:
        raise ValueError(f"no {', '.join(missing)} on the metrics page")
    return ServerFigures(*(round(sums[name]) for name in _SAMPLES))


# In the order of ServerFigures.
_SAMPLES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
)


class VllmPages:
    """A client of the pages that are not for writing."""

    def __init__(self, server: VllmServer) -> None:
        self._client = open_client(server)

    async def healthy(self) -> bool:
        """Return whether the server answers and its engine lives."""
        try:
            answer = await self._client.get("/health", timeout=_ANSWER_SECONDS)
        except httpx.RequestError:
            return False
        return answer.status_code == httpx.codes.OK

    async def served_models(self) -> tuple[str, ...]:
        """Return the ids of the models it serves; raises Transient."""
        answer = await self._get("/v1/models")
        try:
            return tuple(str(model["id"]) for model in answer.json()["data"])
        except (ValueError, LookupError, TypeError) as error:
            raise Transient(DEPENDENCY, "a list of models that is none") from error

    async def figures(self) -> ServerFigures:
        """Return its figures; raises Transient."""
        answer = await self._get("/metrics")
        try:
            return read_server_figures(answer.text)
        except ValueError as error:
            raise Transient(DEPENDENCY, f"/metrics: {error}") from error

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _get(self, path: str) -> httpx.Response:
        try:
            answer = await self._client.get(path, timeout=_ANSWER_SECONDS)
        except httpx.RequestError as error:
            detail = f"{self._client.base_url}: {type(error).__name__}: {str(error)[:200]}"
            raise Transient(DEPENDENCY, detail) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Transient(DEPENDENCY, f"{path}: the API key was not accepted")
        if answer.status_code != httpx.codes.OK:
            raise Transient(DEPENDENCY, f"{path}: HTTP {answer.status_code}")
        return answer
