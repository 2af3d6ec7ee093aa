"""What Freshet knows of one entity and how it came to know it: the facts behind `explain`."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.fingerprints import Json, text_fingerprint
from schemas.history import NEVER
from schemas.knowledge import Document, Factors
from schemas.trace import TraceEntry
from schemas.vector_record import VectorHeader
from streams.explain_user import UserFacts, user_facts
from streams.redis_clients import open_redis
from streams.settings import Settings
from workers.encoding.representation import DEFAULT_PARTS, part_texts
from workers.live.entity_store import EntityStore
from workers.live.seen import SeenStore
from workers.live.seen_record import Seen
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import TraceStore

_RAW_ADAPTOR = "raw"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`document` is None when nothing was merged yet; `texts` are (part, text, fingerprint).

    `user` holds what only users have, None for other kinds.
    """

    key: EntityKey
    document: Document | None
    rev: int
    written_at_ms: int
    seen: Seen | None
    texts: tuple[tuple[str, str | None, str | None], ...]
    vectors: Mapping[str, VectorHeader]
    active_space: str | None
    traces: tuple[TraceEntry, ...]
    user: UserFacts | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything at all is known of the entity."""
        has_history = self.user is not None and self.user.history is not None
        return bool(
            self.document is not None or self.seen is not None or self.traces or has_history
        )

    @property
    def erased_at_ms(self) -> int:
        """As of when a user was erased; NEVER (-1) if not."""
        if self.user is None:
            return NEVER
        removed = None if self.document is None else self.document.removed
        # A document remembers it, too: marks of idle users expire.
        return max(self.user.erased_at_ms, NEVER if removed is None else removed.event_time_ms)

    @property
    def summary(self) -> str:
        """One phrase: where the entity stands."""
        if self.user is not None:
            return self._user_summary(self.user)
        document = self.document
        if document is None:
            return "not merged yet" if self.is_known else "nothing is known"
        if document.is_removed:
            return "removed from the catalogue"
        if document.content is None:
            return "no content"
        if self.active_space is not None and self.active_space not in self.vectors:
            return f"has content, but no vector in {self.active_space}"
        behind = document.versions_behind
        staleness = f", knowledge {behind} versions behind" if behind else ""
        return f"live with stage {document.stage.name.lower()}{staleness}"

    def _user_summary(self, user: UserFacts) -> str:
        events = len(user.events)
        if not events and self.erased_at_ms != NEVER:
            return "erased"
        if not self.is_known:
            return "nothing is known"
        known = f"{events} interactions"
        if self.active_space is None or self.active_space not in self.vectors:
            return f"{known}, but no vector in {self.active_space or 'any active space'}"
        stage = Stage.NONE if self.document is None else self.document.stage
        written = ", written about" if stage is Stage.INDIVIDUAL else ""
        return f"live from {known}{written}"

    def register_lines(self) -> list[str]:
        """Return one line a register."""
        document = self.document or Document()
        lines = []
        if document.removed is not None:
            lines.append(f"removed at version {document.removed.version}")
        if document.content is not None:
            content = document.content
            lines.append(f"content version {content.version}, fingerprint {content.fingerprint}")
        for name, factors in (
            ("collective", document.collective),
            ("individual", document.individual),
        ):
            if factors is not None:
                lines.append(f"{name} {_factors_line(factors)}")
        return lines

    def to_json(self) -> dict[str, Json]:
        """Return JSON-ready values."""
        return {
            "key": str(self.key),
            "summary": self.summary,
            "rev": self.rev,
            "written_at_ms": self.written_at_ms,
            "received": None if self.seen is None else asdict(self.seen),
            "document": None if self.document is None else self.document.to_json(),
            "texts": [
                {"part": part, "text": text, "fingerprint": fingerprint}
                for part, text, fingerprint in self.texts
            ],
            "active_space": self.active_space,
            "vectors": {space: asdict(header) for space, header in self.vectors.items()},
            "outcomes": [asdict(entry) for entry in self.traces],
            **({} if self.user is None else self.user.to_json()),
        }


async def explain_entity(settings: Settings, key: EntityKey) -> Explanation:
    """Gather what Redis holds of an entity; raises Transient("redis")."""
    async with open_redis(settings.redis) as redis:
        registry = SpaceRegistry(redis.client, redis.keys)
        spaces = await registry.spaces()
        stored = await EntityStore(redis.client, redis.keys).load_stored(key, sorted(spaces))
        (seen,) = await SeenStore(redis.client, redis.keys).load([key])
        traces = await TraceStore(redis.client, redis.keys).read(key)
        active = await registry.alias(key.kind)
        user = None
        if key.kind is EntityKind.USER:
            now_ms = time.time_ns() // 1_000_000
            user = await user_facts(redis, key, settings.behaviour, now_ms=now_ms)
    raw = [record.space for record in spaces.values() if record.space.adaptor_id == _RAW_ADAPTOR]
    parts = raw[0].parts if raw else DEFAULT_PARTS
    # A vector without a document is what a lost document leaves behind: not merged.
    document = None if stored is None or stored.rev == 0 else stored.document
    texts = () if document is None else part_texts(document, parts)
    return Explanation(
        key=key,
        document=document,
        rev=0 if stored is None else stored.rev,
        written_at_ms=0 if stored is None else stored.written_at_ms,
        seen=seen,
        texts=tuple(
            (part, text, None if text is None else text_fingerprint(text))
            for part, text in zip(parts, texts, strict=False)
        ),
        vectors={} if stored is None else stored.vectors,
        active_space=active,
        traces=tuple(traces),
        user=user,
    )


def _factors_line(factors: Factors) -> str:
    provenance = factors.provenance
    group = f", group {provenance.group}" if provenance.group else ""
    return (
        f"version {factors.version}, written by {provenance.model} with prompt "
        f"{provenance.prompt_id}, fingerprint {provenance.fingerprint}, "
        f"{provenance.prompt_tokens}+{provenance.completion_tokens} tokens{group}"
    )
