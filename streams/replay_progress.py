"""Which dead letters were replayed, kept by Kafka itself; see `streams.dead_letters`.

The committed offset of a group that nobody is a member of is the floor, and the commit's metadata
holds a mark for each reason, because a replay may be limited to one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from schemas.errors import Transient
from schemas.reasons import Reason
from streams.kafka_clients import retried

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, TopicPartition


@dataclass(frozen=True, slots=True)
class Progress:
    """Which letters of a partition were replayed: those below the floor or their reason's mark."""

    floor: int = 0
    marks: Mapping[str, int] = field(default_factory=dict)

    def covers(self, offset: int, reason: Reason) -> bool:
        """Whether the letter at `offset` was replayed."""
        return offset < max(self.floor, self.marks.get(reason.value, 0))

    def passed(self, offset: int, reason: Reason | None) -> "Progress":
        """Return the progress after all letters up to `offset` (of one reason) were replayed."""
        if reason is not None:
            return replace(self, marks={**self.marks, reason.value: offset + 1})
        marks = {name: mark for name, mark in self.marks.items() if mark > offset + 1}
        return Progress(offset + 1, marks)

    def encode(self) -> str:
        """Return the commit's metadata."""
        return orjson.dumps(self.marks).decode()

    @classmethod
    def decode(cls, offset: int, metadata: str) -> "Progress":
        """Return the progress of a commit; foreign metadata counts as none."""
        try:
            marks = orjson.loads(metadata or "{}")
        except orjson.JSONDecodeError:
            marks = {}
        valid = isinstance(marks, dict) and all(type(mark) is int for mark in marks.values())
        return cls(max(0, offset), marks if valid else {})


def advanced(progress: Progress, offset: int, reason: Reason | None) -> Progress:
    """Return the progress after the letter at `offset`; it never goes back, not `again` either."""
    done = progress.floor if reason is None else progress.marks.get(reason.value, 0)
    return progress if offset < done else progress.passed(offset, reason)


def read_progress(admin: "KafkaAdminClient", group: str) -> "dict[TopicPartition, Progress]":
    """Return how far the replays of a group got."""
    offsets = retried(lambda: admin.list_group_offsets({group: None}))[group]
    return {
        tp: Progress.decode(entry.offset, entry.metadata or "")
        for tp, entry in offsets.items()
        if entry.offset >= 0
    }


def note_progress(
    admin: "KafkaAdminClient", group: str, progress: "Mapping[TopicPartition, Progress]"
) -> None:
    """Note how far the replays of a group got; raises Transient("kafka")."""
    from kafka import OffsetAndMetadata
    from kafka.errors import NoError

    answers = retried(
        lambda: admin.alter_group_offsets(
            group,
            {
                tp: OffsetAndMetadata(entry.floor, entry.encode(), -1)
                for tp, entry in progress.items()
            },
        )
    )
    for tp, error in answers.items():
        if error is not NoError:
            raise Transient("kafka", f"progress of {tp.topic} not noted: {error.__name__}")
