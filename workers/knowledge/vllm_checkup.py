"""A check of a vLLM server by use: real items through the product's own prompts, writer and gate.

Measures what an operator wants to know before a lane depends on the server; changes nothing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Permanent, Transient
from schemas.fingerprints import Json
from schemas.knowledge import KnowledgeRequest, RequestKind
from workers.knowledge.prompts import Domain, item_prompt
from workers.knowledge.quality import QualityGate
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_pages import ServerFigures, VllmPages
from workers.knowledge.vllm_writer import VllmWriter
from workers.knowledge.writer import Rejected

Fields = Mapping[str, Json]

_LEAST_VALID_SHARE = 0.9
"""Of answers with the asked schema. A grammar forces it; only answers without an end lack it."""

SAMPLE_FILMS: Sequence[Fields] = (
    {"title": "Heat", "year": 1995, "genres": ["Crime", "Drama"], "directors": ["Michael Mann"]},
    {"title": "Alien", "year": 1979, "genres": ["Horror", "Sci-Fi"], "directors": ["Ridley Scott"]},
    {"title": "Amélie", "year": 2001, "genres": ["Comedy"], "directors": ["Jean-Pierre Jeunet"]},
    {"title": "Vertigo", "year": 1958, "genres": ["Thriller"], "directors": ["Alfred Hitchcock"]},
    {
        "title": "Up",
        "year": 2009,
        "genres": ["Animation", "Adventure"],
        "directors": ["Pete Docter"],
    },
    {"title": "Ran", "year": 1985, "genres": ["Drama", "War"], "directors": ["Akira Kurosawa"]},
    {"title": "Fargo", "year": 1996, "genres": ["Crime"], "directors": ["Joel Coen", "Ethan Coen"]},
    {"title": "Moon", "year": 2009, "genres": ["Drama", "Sci-Fi"], "directors": ["Duncan Jones"]},
)
"""Asked about when the caller brings no items of its own."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What came of a check. Times in seconds.

    `valid` answers have the asked schema, `accepted` ones pass the quality gate too; `refused` and
    `failed` say why the others do not: codes of the gate, and trouble with the server. `first` is
    the answer to the first item, in the words as they came.
    """

    url: str
    declared: str
    served: tuple[str, ...]
    asked: int
    in_flight: int
    valid: int
    accepted: int
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    first: str
    seconds: float
    latencies: Sequence[float]
    figures: ServerFigures

    @property
    def model_agrees(self) -> bool:
        """Whether the server serves the declared model."""
        return self.declared in self.served

    @property
    def passed(self) -> bool:
        """Whether a lane can work with this server: its model, no failure, answers as asked."""
        enough = self.valid >= _LEAST_VALID_SHARE * self.asked
        return self.model_agrees and not self.failed and enough

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second that the server wrote meanwhile, for whomever."""
        # The server's own count holds the tokens of truncated answers, which cost as much.
        return self.figures.generated_tokens / self.seconds if self.seconds else 0.0

    @property
    def median_latency(self) -> float:
        """The middle answer's seconds; 0 when there was none."""
        return median(self.latencies) if self.latencies else 0.0

    @property
    def worst_latency(self) -> float:
        """The slowest answer's seconds; 0 when there was none."""
        return max(self.latencies, default=0.0)


async def check_up(
    server: VllmServer, *, model: str, domain: Domain, items: Sequence[Fields], in_flight: int
) -> Checkup:
    """Ask the server about every item, `in_flight` at a time, and return what came of it.

    Raises Transient when the server does not say what it serves, ConfigurationError for an address
    that is none, InvalidInput for an item without a title.
    """
    pages = VllmPages(server)
    round_ = _Round(server, model, domain)
    try:
        served, before = await pages.served_models(), await pages.figures()
        started = time.monotonic()
        await round_.ask_all(items, in_flight)
        seconds = time.monotonic() - started
        figures = (await pages.figures()).since(before)
    finally:
        await round_.aclose()
        await pages.aclose()
    return Checkup(
        url=server.url,
        declared=model,
        served=served,
        asked=len(items),
        in_flight=in_flight,
        valid=round_.valid,
        accepted=round_.accepted,
        refused=dict(round_.refused),
        failed=dict(round_.failed),
        first=round_.words.get(0, ""),
        seconds=seconds,
        latencies=round_.latencies,
        figures=figures,
    )


class _Round:
    """The calls of one check, and a tally of how they ended."""

    def __init__(self, server: VllmServer, model: str, domain: Domain) -> None:
        self.valid = 0
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.words: dict[int, str] = {}
        self.latencies: list[float] = []
        self._domain = domain
        self._gate = QualityGate(domain)
        self._writer = VllmWriter(server, model=model)

    async def ask_all(self, items: Sequence[Fields], in_flight: int) -> None:
        """Return when every item has an answer or none."""
        window = asyncio.Semaphore(in_flight)

        async def ask(index: int) -> None:
            async with window:
                await self._ask(index, items[index])

        async with asyncio.TaskGroup() as asking:
            for index in range(len(items)):
                asking.create_task(ask(index))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._writer.aclose()

    async def _ask(self, index: int, fields: Fields) -> None:
        entity = EntityKey(EntityKind.ITEM, f"check-{index}")
        prompt = item_prompt(self._domain, entity, fields)
        request = KnowledgeRequest(entity, RequestKind.NEW, 0, fields, "", 0, 0)
        started = time.monotonic()
        try:
            answer = await self._writer.write(prompt, request, priority=0)
        except Rejected as rejected:
            self.refused[rejected.rejection] += 1
            self.words[index] = rejected.raw
            return
        except (Transient, Permanent) as error:
            self.failed[str(error)] += 1
            return
        self.latencies.append(time.monotonic() - started)
        self.valid += 1
        self.words[index] = answer.raw
        verdict = self._gate.judge(answer, fields)
        if verdict is None:
            self.accepted += 1
        else:
            self.refused[verdict.rejection] += 1
