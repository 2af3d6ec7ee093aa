"""Every topic of Freshet, declared once: name, key, cleanup and retention. See `freshet topics`."""

from dataclasses import dataclass
from enum import StrEnum

DAY_MS = 24 * 60 * 60 * 1000

REMOVED_MARKER_DAYS = 31
"""Removed markers outlive the longest retention of any topic, dead letters (30 d) included."""


class Topic(StrEnum):
    """Names without the deployment's prefix."""

    CATALOG_ITEMS = "catalog.items"
    USER_BEHAVIOUR = "user.behaviour"
    KNOWLEDGE_REQUESTS = "knowledge.requests"
    KNOWLEDGE_BACKLOG = "knowledge.backlog"
    KNOWLEDGE = "knowledge"
    ENTITIES = "entities"
    REPRESENTATIONS = "representations"
    HISTORIES = "histories"
    CONTROL = "control"
    LIVE_UPDATES = "live.updates"


DEAD_LETTERS_PREFIX = "dead-letters."

ENTITY_TOPICS = frozenset(
    {
        Topic.KNOWLEDGE_REQUESTS,
        Topic.KNOWLEDGE_BACKLOG,
        Topic.KNOWLEDGE,
        Topic.ENTITIES,
        Topic.REPRESENTATIONS,
    }
)
"""Same partition count, so one worker owns an entity through the encode lane."""


def dead_letters_topic(lane: str) -> str:
    """Return the name of a lane's dead-letter topic."""
    return f"{DEAD_LETTERS_PREFIX}{lane}"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it must be; `retention_ms` None means compacted without end."""

    name: str
    partitions: int
    compacted: bool
    retention_ms: int | None
    max_message_bytes: int

    def config(self, *, min_insync_replicas: int) -> dict[str, str]:
        """Return the topic configuration that `apply` sets and `check` compares."""
        settings = {
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(min_insync_replicas),
        }
        if self.compacted:
            settings |= {
                "cleanup.policy": "compact",
                "delete.retention.ms": str(7 * DAY_MS),
                "max.compaction.lag.ms": str(DAY_MS),
            }
        else:
            settings |= {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        return settings


def topic_specs(
    *,
    prefix: str,
    partitions: int,
    lanes: tuple[str, ...],
    max_message_bytes: int = 4 * 1024 * 1024,
) -> tuple[TopicSpec, ...]:
    """Return every topic of a deployment, dead letters of `lanes` included."""

    def spec(name: str, days: int | None, count: int = partitions) -> TopicSpec:
        retention = None if days is None else days * DAY_MS
        return TopicSpec(prefix + name, count, days is None, retention, max_message_bytes)

    return (
        spec(Topic.CATALOG_ITEMS, 7),
        spec(Topic.USER_BEHAVIOUR, 7),
        spec(Topic.KNOWLEDGE_REQUESTS, 7),
        spec(Topic.KNOWLEDGE_BACKLOG, 7),
        spec(Topic.KNOWLEDGE, 7),
        spec(Topic.ENTITIES, None),
        spec(Topic.REPRESENTATIONS, None),
        spec(Topic.HISTORIES, None),
        spec(Topic.CONTROL, None, 1),
        spec(Topic.LIVE_UPDATES, 3),
        *(spec(dead_letters_topic(lane), 30, 1) for lane in lanes),
    )
