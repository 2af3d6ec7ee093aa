"""The compacted `control` topic: spaces, aliases and groups as meant to be; Redis mirrors them.

Keys are `space:<name>`, `alias:<kind>` and `groups:<kind>`; other keys belong to others and are
passed over.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.groups import GroupsRecord
from schemas.spaces import AliasRecord, SpaceRecord
from schemas.topics import Topic
from streams.compacted import read_compacted
from streams.emitter import Outgoing
from streams.settings import KafkaSettings

SPACE_KEY = "space:"
ALIAS_KEY = "alias:"
GROUPS_KEY = "groups:"


@dataclass(frozen=True, slots=True)
class Control:
    """Every space by its name; the alias, and the groups in use, of every kind that has them."""

    spaces: Mapping[str, SpaceRecord] = field(default_factory=dict)
    aliases: Mapping[EntityKind, str] = field(default_factory=dict)
    groups: Mapping[EntityKind, GroupsRecord] = field(default_factory=dict)


def fold(records: Iterable[tuple[bytes | None, bytes | None]]) -> Control:
    """Return the state that keys and values, in log order, end in; raises Transient.

    Transient, because these records are written by Freshet alone: what does not decode was written
    by a newer version, and guessing at spaces would mix vectors.
    """
    newest: dict[str, bytes] = {}
    for key, value in records:
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            newest.pop(name, None)
        else:
            newest[name] = value
    spaces: dict[str, SpaceRecord] = {}
    aliases: dict[EntityKind, str] = {}
    groups: dict[EntityKind, GroupsRecord] = {}
    for name, value in newest.items():
        try:
            if name.startswith(SPACE_KEY):
                space = SpaceRecord.model_validate_json(value)
                spaces[space.space.name] = space
            elif name.startswith(ALIAS_KEY):
                alias = AliasRecord.model_validate_json(value)
                aliases[alias.kind] = alias.space
            elif name.startswith(GROUPS_KEY):
                cut = GroupsRecord.model_validate_json(value)
                groups[cut.kind] = cut
        except ValidationError as error:
            raise Transient("kafka", f"{Topic.CONTROL}: {name} does not decode") from error
    return Control(spaces, aliases, groups)


async def read_control(kafka: KafkaSettings) -> Control:
    """Return the state as of now; raises Transient("kafka"), ConfigurationError without a topic."""
    return fold(
        [(record.key, record.value) async for record in read_compacted(kafka, Topic.CONTROL)]
    )


def space_message(record: SpaceRecord) -> Outgoing:
    """Return the record of a space."""
    return _message(SPACE_KEY + record.space.name, record)


def alias_message(record: AliasRecord) -> Outgoing:
    """Return the record of an alias."""
    return _message(ALIAS_KEY + record.kind.value, record)


def groups_message(record: GroupsRecord) -> Outgoing:
    """Return the record of the groups in use."""
    return _message(GROUPS_KEY + record.kind.value, record)


def _message(key: str, record: BaseModel) -> Outgoing:
    return Outgoing(Topic.CONTROL, key.encode(), record.model_dump_json().encode())
