"""Asking the encode lane to write an entity out again, without writing for it.

The compacted topics have one writing lane, and this is how others stay out of its way: a register
on `knowledge` that the document already holds makes the lane produce `entities` and
`representations` again, as they are now; one that it lacks is merged as always.
"""

from collections.abc import Iterator, Sequence

from schemas.entities import EntityKey
from schemas.knowledge import Document, KnowledgeUpdate, Register, RegisterName
from schemas.topics import Topic
from streams.emitter import Emitter, Outgoing

_BATCH = 500


def registers_of(document: Document) -> Iterator[tuple[RegisterName, Register]]:
    """Yield the registers that a document holds, the removal first."""
    if document.removed is not None:
        yield RegisterName.REMOVED, document.removed
    if document.content is not None:
        yield RegisterName.CONTENT, document.content
    if document.collective is not None:
        yield RegisterName.COLLECTIVE, document.collective
    if document.individual is not None:
        yield RegisterName.INDIVIDUAL, document.individual


async def republish(emitter: Emitter, documents: Sequence[tuple[EntityKey, Document]]) -> int:
    """Emit every register of the documents on `knowledge`; return how many. Raises Transient."""
    messages = [
        Outgoing(Topic.KNOWLEDGE, key.encode(), KnowledgeUpdate(key, name, value).encode())
        for key, document in documents
        for name, value in registers_of(document)
    ]
    for start in range(0, len(messages), _BATCH):
        await emitter.emit(messages[start : start + _BATCH])
    return len(messages)
