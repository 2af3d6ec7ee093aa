"""`freshet refresh`: asks for knowledge to be written anew, by filling the backlog.

Reads `entities`, never Redis, and calls no model: the backlog lane does, while the server is idle.
A user is written about anew from what was asked the last time, whatever the gate's budgets say.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.entities import EntityKind
from schemas.knowledge import Content, Document, EntityRecord, KnowledgeRequest, RequestKind
from schemas.topics import Topic
from streams.emitter import Emitter, KafkaEmitter, Outgoing
from streams.entity_log import entity_partitions
from streams.maintenance.conditions import Condition, parse_conditions
from streams.settings import Settings
from workers.knowledge.load_domain import load_domain
from workers.knowledge.select_prompt import PROMPTED_KINDS, prompt_id_of

_TOKENS_A_CALL_UNTIL_KNOWN = 600
_BATCH = 500


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """`tokens` is an estimate: what the selected entities cost the last time they were written."""

    looked_at: int
    selected: int
    tokens: int
    dry_run: bool


async def refresh(
    settings: Settings,
    where: Sequence[str],
    *,
    dry_run: bool = False,
    limit: int | None = None,
    emitter: Emitter | None = None,
    now_ms: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> RefreshReport:
    """Put a request on the backlog for every live entity that meets any of the conditions.

    `prompt!=current` and `model!=current` stand for what the settings name. Raises InvalidInput on
    a condition, Transient("kafka"); a request may be sent twice after that, and costs one call.
    """
    conditions = {
        kind: parse_conditions(where, current_prompt=prompt, current_model=settings.knowledge.model)
        for kind, prompt in _current_prompts(settings).items()
    }
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    own = KafkaEmitter(settings.kafka) if emitter is None and not dry_run else None
    out = emitter or own
    looked_at = 0
    tally = _Tokens()
    try:
        async for partition in entity_partitions(settings.kafka, on_progress=on_progress):
            requests: list[KnowledgeRequest] = []
            for record in partition.records():
                looked_at += 1
                if limit is not None and tally.entities >= limit:
                    break
                content = _selected(record.document, conditions.get(record.entity.kind, ()), now)
                if content is not None:
                    tally.add(record.document)
                    requests.append(_request(record, content, now))
            if out is not None and not dry_run:
                await _emit(out, requests)
            if limit is not None and tally.entities >= limit:
                break
    finally:
        if own is not None:
            await own.aclose()
    return RefreshReport(looked_at, tally.entities, tally.estimate(), dry_run)


def _current_prompts(settings: Settings) -> Mapping[EntityKind, str]:
    """Return the id of the prompt about each kind of entity that there is one for."""
    knowledge = settings.knowledge
    domain = load_domain(
        knowledge.domain,
        factors=knowledge.factors,
        max_factor_chars=knowledge.max_factor_chars,
        max_tokens=knowledge.max_tokens,
    )
    return {kind: prompt_id_of(domain, kind) for kind in PROMPTED_KINDS}


def _selected(document: Document, conditions: Sequence[Condition], now_ms: int) -> Content | None:
    if document.content is None:
        return None
    met = any(condition.holds(document, now_ms) for condition in conditions)
    return document.content if met else None


def _request(record: EntityRecord, content: Content, now_ms: int) -> KnowledgeRequest:
    return KnowledgeRequest(
        entity=record.entity,
        kind=RequestKind.REFRESH,
        version=content.version,
        fields=content.fields,
        content_fingerprint=content.fingerprint,
        event_time_ms=content.event_time_ms,
        requested_at_ms=now_ms,
    )


async def _emit(emitter: Emitter, requests: Sequence[KnowledgeRequest]) -> None:
    for start in range(0, len(requests), _BATCH):
        await emitter.emit(
            [
                Outgoing(Topic.KNOWLEDGE_BACKLOG, request.entity.encode(), request.encode())
                for request in requests[start : start + _BATCH]
            ]
        )


class _Tokens:
    """What a refresh will cost, judged by what it cost before."""

    def __init__(self) -> None:
        self.entities = 0
        self._known_entities = 0
        self._known_tokens = 0

    def add(self, document: Document) -> None:
        self.entities += 1
        if document.individual is None:
            return
        provenance = document.individual.provenance
        tokens = provenance.prompt_tokens + provenance.completion_tokens
        if tokens:
            self._known_entities += 1
            self._known_tokens += tokens

    def estimate(self) -> int:
        if not self._known_entities:
            return self.entities * _TOKENS_A_CALL_UNTIL_KNOWN
        return round(self.entities * self._known_tokens / self._known_entities)
