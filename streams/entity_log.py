"""The compacted `entities` topic as it stands: the newest record of every entity, by partition.

Folded one partition at a time, so the memory it takes is a partition's, not the catalogue's.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from schemas.knowledge import EntityRecord
from schemas.topics import Topic
from streams.compacted import read_compacted
from streams.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class EntityPartition:
    """One partition's entities, still encoded: `values` by Kafka key."""

    partition: int
    values: Mapping[bytes, bytes]

    def records(self) -> "list[EntityRecord]":
        """Return the records, decoded; raises Permanent on one that is not of ours."""
        return [EntityRecord.decode(value) for value in self.values.values()]


async def entity_partitions(
    kafka: KafkaSettings,
    partitions: Collection[int] | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> AsyncIterator[EntityPartition]:
    """Yield the newest state of each partition as of now, removed markers included.

    Newest is the greatest revision since the last null: a writer that was paused may have produced
    an old revision late, and a null (`freshet sweep`) begins the count of revisions anew.
    `on_progress(partitions_done, partitions)`. Raises Transient("kafka"), ConfigurationError.
    """
    chosen = sorted(range(kafka.partitions) if partitions is None else partitions)
    for done, partition in enumerate(chosen, start=1):
        newest: dict[bytes, tuple[int, bytes]] = {}
        async with aclosing(read_compacted(kafka, Topic.ENTITIES, [partition])) as records:
            async for record in records:
                fold(newest, record.key, record.value)
        yield EntityPartition(partition, {key: value for key, (_, value) in newest.items()})
        if on_progress is not None:
            on_progress(done, len(chosen))


def fold(newest: dict[bytes, tuple[int, bytes]], key: bytes | None, value: bytes | None) -> None:
    """Take one record into `newest` (key -> revision, value), in log order. Pure."""
    if key is None:
        return
    if value is None:
        newest.pop(key, None)
        return
    rev = EntityRecord.decode(value).rev
    known = newest.get(key)
    if known is None or rev >= known[0]:
        newest[key] = (rev, value)
