"""Which vectors are made from documents, and of which documents there are any. Pure.

A space whose user vectors come from histories gets them from the behaviour lane; whoever makes
vectors from documents must neither write nor delete those.
"""

from collections.abc import Sequence

from schemas.entities import EntityKey, EntityKind
from schemas.knowledge import Document
from schemas.spaces import Space


def is_from_documents(space: Space, kind: EntityKind) -> bool:
    """Whether the space's vectors of this kind are made from documents, and go with them."""
    if kind not in space.kinds:
        return False
    return kind is not EntityKind.USER or space.user_vectors == "knowledge"


def is_from_histories(space: Space, kind: EntityKind) -> bool:
    """Whether the space's vectors of this kind are made from users' histories."""
    return kind is EntityKind.USER and kind in space.kinds and space.user_vectors == "histories"


def is_described(key: EntityKey, document: Document, parts: Sequence[str]) -> bool:
    """Whether there is anything to make a vector from; `parts` are the raw space's.

    An item is, as soon as it has content. A user's content is only what was asked about: without a
    text about them there is no vector, rather than one that says nothing. A group has no content at
    all, only what is written about it.
    """
    if key.kind is EntityKind.ITEM:
        return document.content is not None
    if key.kind is EntityKind.USER and document.content is None:
        return False
    factors = document.live_factors
    return factors is not None and any(factors.factors.get(part, "").strip() for part in parts)
