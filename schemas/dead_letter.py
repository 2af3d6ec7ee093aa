"""A dead letter: the original record untouched, and headers that say why it is here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Self, TypeAlias

from schemas.reasons import Reason

Headers: TypeAlias = tuple[tuple[str, bytes], ...]

PREFIX = "freshet_dl_"
HEAD_BYTES = 64 * 1024
"""Of a record over the size limit only this much is kept, with its size and digest."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is produced to `dead-letters.<lane>`; `headers` are the original record's."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: Reason
    detail: str
    stage: str
    attempts: int
    first_seen_ms: int
    topic: str
    partition: int
    offset: int
    group: str
    original_bytes: int | None = None
    original_digest: str | None = None

    def cut_to_head(self) -> Self:
        """Return the letter with an oversized value cut to its head, size and digest noted."""
        if self.value is None or len(self.value) <= HEAD_BYTES:
            return self
        return replace(
            self,
            value=self.value[:HEAD_BYTES],
            original_bytes=len(self.value),
            original_digest=blake2b(self.value, digest_size=16).hexdigest(),
        )

    def all_headers(self) -> Headers:
        """Return the original headers, then ours."""
        notes: dict[str, str | int | None] = {
            "reason": self.reason.value,
            "detail": self.detail[:500],
            "stage": self.stage,
            "attempts": self.attempts,
            "first_seen_ms": self.first_seen_ms,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "group": self.group,
            "original_bytes": self.original_bytes,
            "original_digest": self.original_digest,
        }
        ours = tuple(
            (PREFIX + name, str(value).encode("utf-8", "replace"))
            for name, value in notes.items()
            if value is not None
        )
        return self.headers + ours

    @classmethod
    def from_record(
        cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Self:
        """Return the letter that a dead-letter record holds; raises ValueError on a foreign one."""
        notes = {
            name.removeprefix(PREFIX): data.decode("utf-8", "replace")
            for name, data in headers
            if name.startswith(PREFIX)
        }
        try:
            size = notes.get("original_bytes")
            return cls(
                key=key,
                value=value,
                headers=tuple((n, d) for n, d in headers if not n.startswith(PREFIX)),
                reason=Reason(notes["reason"]),
                detail=notes["detail"],
                stage=notes["stage"],
                attempts=int(notes["attempts"]),
                first_seen_ms=int(notes["first_seen_ms"]),
                topic=notes["topic"],
                partition=int(notes["partition"]),
                offset=int(notes["offset"]),
                group=notes["group"],
                original_bytes=None if size is None else int(size),
                original_digest=notes.get("original_digest"),
            )
        except KeyError as error:
            raise ValueError(f"not a dead letter: header {error} is missing") from error
