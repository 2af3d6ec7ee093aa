"""What is asked about a group, or about several items of one at once. Pure."""

from collections.abc import Mapping, Sequence

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import KnowledgeRequest, RequestKind
from workers.grouping.groups import Group, Groups
from workers.knowledge.group_prompt import MEMBERS
from workers.knowledge.shared_prompt import FIELDS, ITEMS
from workers.knowledge.titles import ITEM


def group_key(group: Group) -> EntityKey:
    """Return the entity that a group's knowledge is kept under."""
    return EntityKey(EntityKind.GROUP, group.id)


def group_fields(group: Group) -> Mapping[str, Json]:
    """Return the fields of a request about a group: its exemplars."""
    return {MEMBERS: list(group.exemplars)}


def group_request(groups: Groups, row: int, now_ms: int) -> KnowledgeRequest:
    """Return the request about the group of this row, asked now.

    Its version is the time: a group has no source that would number its versions.
    """
    group = groups.groups[row]
    return _request(group_key(group), group_fields(group), now_ms)


def shared_request(
    group: EntityKey, members: Sequence[KnowledgeRequest], now_ms: int
) -> KnowledgeRequest:
    """Return the request that these requests about items of a group share, asked now."""
    items: list[Json] = [{ITEM: one.entity.id, FIELDS: one.fields} for one in members]
    return _request(group, {ITEMS: items}, now_ms)


def _request(group: EntityKey, fields: Mapping[str, Json], now_ms: int) -> KnowledgeRequest:
    return KnowledgeRequest(
        entity=group,
        kind=RequestKind.REFRESH,
        version=now_ms,
        fields=fields,
        content_fingerprint=content_fingerprint(fields),
        event_time_ms=now_ms,
        requested_at_ms=now_ms,
    )
