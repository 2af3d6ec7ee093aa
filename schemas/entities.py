"""What Freshet keeps vectors of: entity keys and the stage of a vector."""

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Self

from schemas.errors import InvalidInput
from schemas.reasons import Reason

MAX_VERSION = 2**63 - 1
"""Largest version: it has to fit the vector record's signed 64-bit field."""

MAX_ID_BYTES = 200

# Braces would break Redis hash tags; white space and controls break logs and command lines.
_FORBIDDEN_IN_ID = re.compile(r"[\s{}\x00-\x1f\x7f-\x9f]")


class EntityKind(StrEnum):
    """The three kinds of entity."""

    ITEM = "item"
    USER = "user"
    GROUP = "group"


_KINDS = frozenset(kind.value for kind in EntityKind)


class Stage(IntEnum):
    """What a vector knows: rankers see it in every result. Greater is richer."""

    NONE = 0
    CONTENT = 1  # the item's own text
    COLLECTIVE = 2  # what was said of it in a call that its group shared
    INDIVIDUAL = 3  # knowledge written about this very entity


@dataclass(frozen=True, slots=True, order=True)
class EntityKey:
    """`item:42`, `user:7` or `group:13`; the Kafka key and the Redis hash tag of the entity."""

    kind: EntityKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.id}"

    def encode(self) -> bytes:
        """Return the key as Kafka key bytes."""
        return str(self).encode()

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Return the key that `text` spells; raises InvalidInput(invalid_id)."""
        try:
            spelled = text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError as error:
            raise InvalidInput(Reason.INVALID_ID, "key is not UTF-8") from error
        kind, separator, id_ = spelled.partition(":")
        if not separator or kind not in _KINDS:
            raise InvalidInput(Reason.INVALID_ID, f"{spelled[:80]!r} is not kind:id")
        return cls(EntityKind(kind), checked_id(id_))

    @classmethod
    def item(cls, id_: str) -> Self:
        """Return the key of an item; raises InvalidInput(invalid_id)."""
        return cls(EntityKind.ITEM, checked_id(id_))


def checked_id(id_: str) -> str:
    """Return `id_` if it can be part of a key; raises InvalidInput(invalid_id) otherwise."""
    try:
        size = len(id_.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(Reason.INVALID_ID, "id holds lone surrogates") from error
    if not 0 < size <= MAX_ID_BYTES:
        raise InvalidInput(Reason.INVALID_ID, f"id of {size} bytes, allowed 1-{MAX_ID_BYTES}")
    if _FORBIDDEN_IN_ID.search(id_):
        raise InvalidInput(Reason.INVALID_ID, "id holds white space, braces or control characters")
    return id_
