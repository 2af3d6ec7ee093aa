"""The published contracts: as generated, whole, and true of what the codecs write."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from schemas.behaviour import (
    BehaviourBatch,
    BehaviourLimits,
    UserBehaviour,
    UserErased,
    behaviour_headers,
    decode_behaviour,
    encode_behaviour,
)
from schemas.dead_letter import DeadLetter
from schemas.entities import EntityKey, Stage
from schemas.events import ItemUpserted, cloud_event_headers
from schemas.history import History, HistoryEvent, HistoryRecord, event_digest
from schemas.knowledge import (
    Content,
    Document,
    EntityRecord,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    Provenance,
    Register,
    RegisterName,
    Removed,
    RequestKind,
)
from schemas.live_update import LiveUpdate
from schemas.reasons import Reason
from schemas.representation_record import RepresentationRecord
from schemas.topics import topic_specs
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
from streams.contracts import render, write
from streams.topology import LANES

CONTRACTS = Path(__file__).parents[2] / "deploy" / "contracts"
KEY = EntityKey.item("42")
HEX = "0123456789abcdef" * 2
PROVENANCE = Provenance("a-model", "movies-1", HEX, 300, 120)
CONTENT = Content(17, {"title": "The Lamp", "year": 1999, "genres": ["Drama"]}, HEX, 1_000)
RATED = UserBehaviour(user_id="7", event_id="e1", item_id="42", action="rate", value=9.0)
FACTORS = Factors(17, 2_000, {"genre": "sea drama"}, PROVENANCE, 1_000)


def asyncapi() -> dict[str, Any]:
    return json.loads(render()["asyncapi.json"])


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Any, pointer: str) -> object:
    for step in pointer.split("/")[1:]:
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def test_the_published_files_are_what_the_models_say():
    published = {path.name: path.read_text("utf-8") for path in CONTRACTS.glob("*.json")}

    assert published == render(), "run: python -m streams.contracts deploy/contracts"


def test_writing_replaces_what_was_there(tmp_path):
    (tmp_path / "gone.schema.json").write_text("{}")

    write(tmp_path)

    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == render()


@pytest.mark.parametrize("name", render())
def test_every_reference_leads_somewhere(name):
    files = {file: json.loads(text) for file, text in render().items()}

    for reference in references(files[name]):
        file, _, pointer = reference.partition("#")
        target = files[file.removeprefix("./")] if file else files[name]
        assert resolve(target, pointer) is not None, reference


def test_every_topic_of_a_deployment_has_a_channel_with_its_cleanup_and_retention():
    specs = topic_specs(prefix="", partitions=8, lanes=tuple(LANES))
    channels = asyncapi()["channels"]

    assert set(channels) == {spec.name for spec in specs}
    for spec in specs:
        channel = channels[spec.name]
        topic = channel["bindings"]["kafka"]["topicConfiguration"]
        assert topic["cleanup.policy"] == ["compact" if spec.compacted else "delete"]
        assert topic.get("retention.ms") == spec.retention_ms
        assert channel["bindings"]["kafka"]["partitions"] == spec.partitions
        assert channel["x-key"]
        assert channel["messages"] or not channel["x-written-by"]


def test_every_lane_reads_its_inputs_and_writes_its_dead_letters():
    operations = asyncapi()["operations"]

    for lane, inputs in LANES.items():
        for topic in inputs:
            assert operations[f"{lane}.receive.{topic}"]["channel"]["$ref"].endswith(topic)
        assert f"{lane}.send.dead-letters.{lane}" in operations


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (RegisterName.REMOVED, Removed(18, 1_000)),
        (RegisterName.CONTENT, CONTENT),
        (RegisterName.COLLECTIVE, FACTORS),
        (RegisterName.INDIVIDUAL, FACTORS),
    ],
)
def test_knowledge_updates_are_as_documented(register: RegisterName, value: Register):
    encoded = KnowledgeUpdate(KEY, register, value).encode()

    documented = KnowledgeUpdateValue.model_validate_json(encoded)

    assert documented.model_dump(mode="json", by_alias=True) == orjson.loads(encoded)


@pytest.mark.parametrize("kind", RequestKind)
def test_knowledge_requests_are_as_documented(kind: RequestKind):
    encoded = KnowledgeRequest(KEY, kind, 17, CONTENT.fields, HEX, 1_000, 2_000, 1, 3_000).encode()

    documented = KnowledgeRequestValue.model_validate_json(encoded)

    assert documented.model_dump(mode="json") == orjson.loads(encoded)


@pytest.mark.parametrize(
    "document",
    [
        Document(removed=Removed(18, 1_000)),
        Document(content=CONTENT, collective=FACTORS, individual=FACTORS),
    ],
)
def test_entity_records_are_as_documented(document: Document):
    encoded = EntityRecord(KEY, 3, document, 4_000).encode()

    documented = EntityRecordValue.model_validate_json(encoded)

    dumped = documented.model_dump(mode="json", exclude_unset=True)
    assert dumped == orjson.loads(encoded)


def test_live_updates_are_as_documented():
    encoded = LiveUpdate(KEY, "a-space", 3, Stage.INDIVIDUAL, 17, -1, 1_000, 4_000).encode()

    documented = LiveUpdateValue.model_validate_json(encoded)

    assert documented.model_dump(mode="json") == orjson.loads(encoded)


def test_representation_records_are_as_documented():
    parts = np.ones((1, 4), np.float16)
    encoded = RepresentationRecord(
        KEY, 3, "an-encoder", ("title", "x"), (HEX, None), parts
    ).encode()
    header = encoded[4 : 4 + int.from_bytes(encoded[:4], "big")]

    documented = RepresentationHeader.model_validate_json(header)

    assert documented.model_dump(mode="json") == orjson.loads(header)
    assert len(encoded) == 4 + len(header) + 4 * 2


def test_the_headers_of_a_catalogue_event_are_as_documented():
    event = ItemUpserted.model_validate(
        {
            "item_id": "42",
            "version": 1,
            "occurred_at": "2013-06-04T00:00:00Z",
            "item": {"title": "T"},
        }
    )
    headers = {
        name: value.decode() for name, value in cloud_event_headers(event, source="s", id_="1")
    }

    CloudEventHeaders.model_validate(headers)

    assert set(headers) - {"content-type"} == set(CloudEventHeaders.model_fields)


def test_the_headers_of_a_dead_letter_are_as_documented():
    letter = DeadLetter(
        b"k", b"v", (("ce_id", b"1"),), Reason.NOT_JSON, "detail", "decode", 1, 1_000,
        "catalog.items", 0, 7, "freshet.items", 99, HEX,
    )  # fmt: skip
    headers = {name: value.decode() for name, value in letter.all_headers()}

    documented = DeadLetterHeaders.model_validate(headers)

    ours = documented.model_dump(mode="json", by_alias=True, exclude={"ce_id"})
    assert {name: str(value) for name, value in ours.items()} | {"ce_id": "1"} == headers


def test_the_published_event_schema_names_both_types():
    schema = json.loads(render()["catalog_event.schema.json"])

    assert set(schema["discriminator"]["mapping"]) == {"item.upserted", "item.removed"}
    assert CatalogEventValue.model_validate({"type": "item.removed", "item_id": "42", "version": 3})


@pytest.mark.parametrize(
    "event",
    [
        RATED,
        UserErased.model_validate({"user_id": "7", "occurred_at": "2013-06-04T00:00:00Z"}),
        BehaviourBatch(events=(RATED, UserErased(user_id="8"))),
    ],
)
def test_behaviour_records_and_their_headers_are_as_documented(event):
    encoded = encode_behaviour(event)
    headers = {
        name: value.decode() for name, value in behaviour_headers(event, source="s", id_="1")
    }

    documented = BehaviourEventValue.model_validate_json(encoded)

    assert documented.model_dump(mode="json", exclude_none=True) == orjson.loads(encoded)
    assert headers["ce_type"] == f"freshet.{orjson.loads(encoded)['type']}"
    assert CloudEventHeaders.model_validate(headers).ce_id == "1"
    assert set(headers) - {"content-type"} <= set(CloudEventHeaders.model_fields)


@pytest.mark.parametrize(
    "history",
    [
        History(3, -1, (HistoryEvent(1_000, event_digest("e1"), "42", "rate", 9.0),)),
        History(4, 2_000, (HistoryEvent(3_000, event_digest("e2"), "42", "view"),)),
        History(5, 4_000),
    ],
)
def test_history_records_are_as_documented(history):
    encoded = HistoryRecord(EntityKey.parse("user:7"), history, 5_000).encode()

    documented = HistoryRecordValue.model_validate_json(encoded)

    assert documented.model_dump(mode="json") == orjson.loads(encoded)


def _examples(name: str) -> list[Any]:
    return json.loads(render()[f"{name}.schema.json"])["examples"]


@pytest.mark.parametrize("example", _examples("behaviour_event"))
def test_the_examples_of_behaviour_pass_the_lanes_check(example):
    first = example.get("events", [example])[0]
    decoded = decode_behaviour(
        f"user:{first['user_id']}".encode(),
        orjson.dumps(example),
        (),
        timestamp_ms=1_700_000_000_000,
        now_ms=1_700_000_000_000,
        limits=BehaviourLimits(frozenset({"view", "like", "rate"})),
    )

    assert len(decoded.events) == len(example.get("events", [example]))
    assert decoded.refused == ()


@pytest.mark.parametrize("example", _examples("history_record"))
def test_the_examples_of_histories_decode(example):
    record = HistoryRecord.decode(orjson.dumps(example))

    assert orjson.loads(record.encode()) == example


@pytest.mark.parametrize("example", _examples("knowledge_request"))
def test_the_examples_of_requests_decode(example):
    request = KnowledgeRequest.decode(orjson.dumps(example))

    assert request.kind is RequestKind.USER
    assert orjson.loads(request.encode()) == example


def test_the_published_behaviour_schema_names_every_type():
    schema = json.loads(render()["behaviour_event.schema.json"])

    assert set(schema["discriminator"]["mapping"]) == {
        "user.behaviour",
        "user.erased",
        "user.behaviour.batch",
    }
