"""The public contracts as files: JSON Schemas of every record and an AsyncAPI 3.0 document.

Generated from the models and the topic declarations, so they cannot drift; `deploy/contracts/`
holds the result. Refresh with `python -m streams.contracts deploy/contracts`.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas.fingerprints import Json
from schemas.groups import GroupsRecord
from schemas.spaces import AliasRecord, SpaceRecord
from schemas.topics import (
    DEAD_LETTERS_PREFIX,
    Topic,
    TopicSpec,
    dead_letters_topic,
    topic_specs,
)
from streams.behaviour_contract_models import BehaviourEventValue, HistoryRecordValue
from streams.contract_models import (
    CatalogEventValue,
    CloudEventHeaders,
    DeadLetterHeaders,
    EntityRecordValue,
    KnowledgeRequestValue,
    KnowledgeUpdateValue,
    LiveUpdateValue,
    RepresentationHeader,
)
from streams.topology import LANES

Object: TypeAlias = dict[str, Json]

VERSION = "1.0.0"
"""Of the contracts: its first number grows when a consumer or producer has to change."""

_PARTITIONS = 8
_SCHEMAS: Mapping[str, type[BaseModel]] = {
    "catalog_event": CatalogEventValue,
    "behaviour_event": BehaviourEventValue,
    "knowledge_request": KnowledgeRequestValue,
    "knowledge_update": KnowledgeUpdateValue,
    "entity_record": EntityRecordValue,
    "representation_header": RepresentationHeader,
    "history_record": HistoryRecordValue,
    "live_update": LiveUpdateValue,
    "space_record": SpaceRecord,
    "alias_record": AliasRecord,
    "groups_record": GroupsRecord,
    "cloud_event_headers": CloudEventHeaders,
    "dead_letter_headers": DeadLetterHeaders,
}


class _Channel(BaseModel):
    """What the topic declarations do not say of a topic; `messages` name schemas."""

    key: str
    meaning: str
    writers: tuple[str, ...]
    messages: tuple[str, ...] = ()
    headers: str | None = None
    content_type: str = "application/json"


_ENTITY = "item:<id> (also user:<id>, group:<id>)"
_CHANNELS: Mapping[str, _Channel] = {
    Topic.CATALOG_ITEMS: _Channel(
        key="item:<id>",
        meaning="What producers say of their catalogue: items whole, or removed.",
        writers=("producers",),
        messages=("catalog_event",),
        headers="cloud_event_headers",
    ),
    Topic.USER_BEHAVIOUR: _Channel(
        key="user:<id> of the (first) event",
        meaning=(
            "What users did with items, and which users are to be forgotten: one event a record, or"
            " several whose users all belong to the record's partition."
        ),
        writers=("producers", "cli"),
        messages=("behaviour_event",),
        headers="cloud_event_headers",
    ),
    Topic.KNOWLEDGE_REQUESTS: _Channel(
        key=_ENTITY,
        meaning="Write about this entity now: it is new, changed or removed.",
        writers=("items",),
        messages=("knowledge_request",),
    ),
    Topic.KNOWLEDGE_BACKLOG: _Channel(
        key=_ENTITY,
        meaning="Write about this entity when there is time: users, refreshes, second attempts.",
        writers=("behaviour", "knowledge", "knowledge-backlog", "cli"),
        messages=("knowledge_request",),
    ),
    Topic.KNOWLEDGE: _Channel(
        key=_ENTITY,
        meaning="One register value of one entity, on its way into the entity's document.",
        writers=("items", "behaviour", "knowledge", "knowledge-backlog"),
        messages=("knowledge_update",),
    ),
    Topic.ENTITIES: _Channel(
        key=_ENTITY,
        meaning="The merged document of every entity. A null value forgets it.",
        writers=("encode",),
        messages=("entity_record",),
    ),
    Topic.REPRESENTATIONS: _Channel(
        key=_ENTITY,
        meaning=(
            "The raw parts of every entity; null once it is removed. Binary: u32 big-endian length,"
            " JSON header of that length (the schema), then the present parts as little-endian"
            " float16."
        ),
        writers=("encode",),
        messages=("representation_header",),
        content_type="application/octet-stream",
    ),
    Topic.HISTORIES: _Channel(
        key="user:<id>",
        meaning=(
            "The bounded history of every user, at most once a minute each, and the marks of"
            " erasures. A null value forgets a user who was idle for long."
        ),
        writers=("behaviour", "cli"),
        messages=("history_record",),
    ),
    Topic.CONTROL: _Channel(
        key="space:<name>, alias:<kind> or groups:<kind>",
        meaning="Spaces with their states, and which space each kind of entity is served from.",
        writers=("cli",),
        messages=("space_record", "alias_record", "groups_record"),
    ),
    Topic.LIVE_UPDATES: _Channel(
        key=_ENTITY,
        meaning=(
            "A live vector changed: for index builders and caches. User vectors made from histories"
            " are not announced."
        ),
        writers=("encode",),
        messages=("live_update",),
    ),
}


def render() -> dict[str, str]:
    """Return the text of every contract file by its name."""
    documents = {f"{name}.schema.json": _schema(model) for name, model in _SCHEMAS.items()}
    documents["asyncapi.json"] = _asyncapi()
    return {
        name: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in sorted(documents.items())
    }


def write(folder: Path) -> None:
    """Make `folder` hold the rendered files and no other schema."""
    folder.mkdir(parents=True, exist_ok=True)
    files = render()
    for stale in folder.glob("*.json"):
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def _schema(model: type[BaseModel]) -> Object:
    return {"$schema": GenerateJsonSchema.schema_dialect, **model.model_json_schema()}


def _asyncapi() -> Object:
    specs = topic_specs(prefix="", partitions=_PARTITIONS, lanes=tuple(LANES))
    channels = {spec.name: _channel(spec, _described(spec.name)) for spec in specs}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Freshet",
            "version": VERSION,
            "description": (
                "Every topic of a deployment, without its prefix. A lane is one consumer group;"
                " an operation says which lane reads or writes a topic."
            ),
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(),
        "components": {"messages": _messages()},
    }


def _described(topic: str) -> _Channel:
    if topic in _CHANNELS:
        return _CHANNELS[topic]
    lane = topic.removeprefix(DEAD_LETTERS_PREFIX)
    return _Channel(
        key="as in the original record",
        meaning=(
            f"Records that the {lane} lane could not use: key, value and headers untouched,"
            " and headers that say why. Of a record over the size limit the value holds the head."
        ),
        writers=(lane,),
        messages=("dead_letter",),
        content_type="application/octet-stream",
    )


def _channel(spec: TopicSpec, described: _Channel) -> Object:
    # Kafka's own spelling; the numbers are numbers in the binding.
    config = spec.config(min_insync_replicas=1)
    del config["min.insync.replicas"]  # the deployment's choice
    topic: Object = {name: int(value) for name, value in config.items() if name != "cleanup.policy"}
    return {
        "address": spec.name,
        "description": described.meaning,
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in described.messages
        },
        "bindings": {
            "kafka": {
                "partitions": spec.partitions,
                "topicConfiguration": {"cleanup.policy": [config["cleanup.policy"]], **topic},
                "bindingVersion": "0.5.0",
            }
        },
        "x-key": described.key,
        "x-written-by": list(described.writers),
    }


def _operations() -> Object:
    reads = [(lane, "receive", topic) for lane, inputs in LANES.items() for topic in inputs]
    writes = [
        (writer, "send", topic)
        for topic in (*_CHANNELS, *map(dead_letters_topic, LANES))
        for writer in _described(topic).writers
    ]
    return {
        f"{who}.{action}.{topic}": {
            "action": action,
            # A reference is a JSON pointer; topic names hold nothing that it would have to escape.
            "channel": {"$ref": f"#/channels/{topic}"},
            "summary": f"{who} {'reads' if action == 'receive' else 'writes'} {topic}",
        }
        for who, action, topic in (*reads, *writes)
    }


def _messages() -> Object:
    messages: Object = {}
    for described in (*_CHANNELS.values(), _described(f"{DEAD_LETTERS_PREFIX}lane")):
        for name in described.messages:
            messages[name] = _message(name, described)
    return messages


def _message(name: str, described: _Channel) -> Object:
    is_dead_letter = name == "dead_letter"
    headers = "dead_letter_headers" if is_dead_letter else described.headers
    message: Object = {
        "name": name,
        "contentType": described.content_type,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": described.key},
                "bindingVersion": "0.5.0",
            }
        },
    }
    if headers is not None:
        message["headers"] = {"$ref": f"./{headers}.schema.json"}
    if not is_dead_letter:  # its value is the original's, whatever that was
        message["payload"] = {"$ref": f"./{name}.schema.json"}
    return message


if __name__ == "__main__":
    write(Path(sys.argv[1]))
