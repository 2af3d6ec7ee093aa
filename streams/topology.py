"""Which lanes there are, what each reads, and the names of their consumer groups.

Declared once for the lanes themselves, `freshet up`, lag, topics and dead letters. Pure.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from schemas.errors import ConfigurationError
from schemas.spaces import SPACE_NAME, SpaceRecord, SpaceState
from schemas.topics import Topic

BEHAVIOUR = "behaviour"

LANES: Mapping[str, tuple[Topic, ...]] = MappingProxyType(
    {
        "items": (Topic.CATALOG_ITEMS,),
        "knowledge": (Topic.KNOWLEDGE_REQUESTS,),
        "knowledge-backlog": (Topic.KNOWLEDGE_BACKLOG,),
        "encode": (Topic.KNOWLEDGE,),
        BEHAVIOUR: (Topic.USER_BEHAVIOUR, Topic.LIVE_UPDATES),
    }
)
"""The lanes that every deployment runs, and their input topics, in the order of the flow."""

SPACE_LANE_PREFIX = "encode."
"""A new space has its own lane `encode.<space>`: it backfills, and goes on following."""

_SPACE_LANE_INPUTS = (Topic.ENTITIES, Topic.REPRESENTATIONS, Topic.HISTORIES)
_GROUP_PREFIX = "freshet."
_WRITTEN = (SpaceState.BACKFILLING, SpaceState.ACTIVE)


def lane_inputs(lane: str) -> tuple[Topic, ...]:
    """Return the topics that a lane reads; raises ConfigurationError for an unknown lane."""
    if lane in LANES:
        return LANES[lane]
    space = lane.removeprefix(SPACE_LANE_PREFIX)
    if space != lane and re.match(SPACE_NAME, space):
        return _SPACE_LANE_INPUTS
    raise ConfigurationError("lane", f"{lane!r} is none of {', '.join(LANES)} or encode.<space>")


def lane_topics(lane: str) -> tuple[Topic, ...]:
    """Return the topics that must be as declared before a lane starts; raises as `lane_inputs`."""
    # Its histories go to the partition that their events came from: the counts have to agree.
    beside = (Topic.HISTORIES,) if lane == BEHAVIOUR else ()
    return (*lane_inputs(lane), *beside)


def deployed_lanes(spaces: Iterable[SpaceRecord]) -> tuple[str, ...]:
    """Return the lanes that a deployment with these spaces has to run."""
    live = (record for record in spaces if record.state in _WRITTEN)
    writers = sorted(record.writer for record in live if record.writer not in LANES)
    return (*LANES, *dict.fromkeys(writers))


def group_id(prefix: str, lane: str) -> str:
    """Return the consumer group of a lane."""
    return f"{prefix}{_GROUP_PREFIX}{lane}"


def history_watermark_group(prefix: str) -> str:
    """Return the group whose committed offsets on `user.behaviour` say what `histories` holds.

    Nobody is a member of it: everything before the offset of a partition is in the topic.
    """
    return f"{prefix}{_GROUP_PREFIX}histories"


def replay_group_id(prefix: str, lane: str) -> str:
    """Return the group whose committed offsets say which dead letters were replayed."""
    return f"{prefix}{_GROUP_PREFIX}replay.{lane}"


def space_lane_of_group(prefix: str, group: str) -> str | None:
    """Return the `encode.<space>` lane that a consumer group belongs to, None for others."""
    lane = group.removeprefix(prefix + _GROUP_PREFIX)
    if lane == group or not lane.startswith(SPACE_LANE_PREFIX):
        return None
    return lane
