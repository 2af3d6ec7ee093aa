"""What the behaviour lane says about a user who was erased. Pure.

Everything known of a user carries a revision of their history as its version, so a removal under
the revision after the erasure outranks whatever is still on its way.
"""

from schemas.entities import EntityKey
from schemas.history import History
from schemas.knowledge import (
    KnowledgeRequest,
    KnowledgeUpdate,
    RegisterName,
    Removed,
    RequestKind,
)
from schemas.topics import Topic
from streams.emitter import Outgoing
from streams.history_log import history_message


def erasure_messages(
    user: EntityKey, history: History, *, partition: int, now_ms: int
) -> tuple[Outgoing, ...]:
    """Return the records that carry an erasure on; `history` is what is left, with its mark.

    `partition` is the one that the user's events come from.
    """
    removed = Removed(history.rev, history.erased_at_ms)
    request = KnowledgeRequest(
        entity=user,
        kind=RequestKind.REMOVE,
        version=history.rev,
        fields={},
        content_fingerprint="",
        event_time_ms=history.erased_at_ms,
        requested_at_ms=now_ms,
    )
    key = user.encode()
    update = KnowledgeUpdate(user, RegisterName.REMOVED, removed)
    return (
        history_message(user, history, partition=partition, written_at_ms=now_ms),
        Outgoing(Topic.KNOWLEDGE, key, update.encode()),
        Outgoing(Topic.KNOWLEDGE_BACKLOG, key, request.encode()),
    )
