"""What a knowledge lane remembers of its own last minutes. Pure: time is passed in."""

from collections import OrderedDict, deque

from schemas.entities import EntityKey
from schemas.knowledge import Document

_MAX_ENTITIES = 4096
_MAX_AGE_MS = 300_000


class RecentKnowledge:
    """Registers emitted recently, which the encode lane may not have merged yet.

    Bounded in number and in age: a forgotten register costs one call at most, and a register that
    `freshet forget` took out of the documents must not live on here.
    """

    def __init__(self) -> None:
        self._documents: OrderedDict[EntityKey, tuple[int, Document]] = OrderedDict()

    def add(self, entity: EntityKey, news: Document, *, now_ms: int) -> None:
        """Remember registers of an entity, merged with what is remembered of it."""
        merged = self.get(entity, now_ms=now_ms).merge(news)
        self._documents[entity] = (now_ms, merged)
        self._documents.move_to_end(entity)
        while len(self._documents) > _MAX_ENTITIES:
            self._documents.popitem(last=False)

    def get(self, entity: EntityKey, *, now_ms: int) -> Document:
        """Return what is remembered of an entity; empty when that is nothing."""
        remembered_at_ms, document = self._documents.get(entity, (now_ms, Document()))
        if now_ms - remembered_at_ms > _MAX_AGE_MS:
            del self._documents[entity]
            return Document()
        return document


class RefusalShare:
    """The share of requests without a usable answer among the last ones: nearly all means illness.

    A writer that answers garbage is ill, and its requests are better held than used up. A weak
    model is not: it is declared by a `share` above 1, which is never reached.
    """

    def __init__(self, share: float, *, window: int = 40, at_least: int = 20) -> None:
        self._last: deque[bool] = deque(maxlen=window)
        self._at_least = at_least
        self._share = share

    def note(self, *, refused: bool) -> None:
        """Note how a request ended: after the repair, so that a repaired answer is a good one."""
        self._last.append(refused)

    @property
    def is_flood(self) -> bool:
        """Whether that share of enough requests was refused."""
        noted = len(self._last)
        return noted >= self._at_least and sum(self._last) >= self._share * noted

    def __str__(self) -> str:
        return f"{sum(self._last)} of the last {len(self._last)} requests got no usable answer"
