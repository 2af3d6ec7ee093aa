"""Commands about users against a real Kafka and Redis: produce, explain, get, erase."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from schemas.behaviour import Erasure, decode_behaviour
from schemas.entities import EntityKey, EntityKind, Stage
from schemas.history import HistoryEvent, event_digest
from schemas.topics import Topic
from schemas.vector_record import VectorHeader, VectorRecord
from streams.lanes.erasure import erasure_messages
from streams.settings import BehaviourSettings
from tests.cli_runner import Ran, run_freshet
from tests.maintained import Maintained, content, individual, maintained, removed
from tests.stack import read_topic, wait_until_blocking
from workers.knowledge.preference_gate import GateReason, GateState
from workers.live.gate_store import GateStore
from workers.live.history_store import HistoryChange, HistoryStore
from workers.live.space_registry import SpaceRegistry

USER = EntityKey.parse("user:7")
AT_MS = 1_371_240_900_000
BEHAVIOUR = BehaviourSettings(max_per_minute=2)


@pytest.fixture
async def world(kafka, redis_server, topic_prefix, monkeypatch, tmp_path):
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("FRESHET_KAFKA__TOPIC_PREFIX", topic_prefix)
    monkeypatch.setenv("FRESHET_REDIS__URL", redis_server.url)
    monkeypatch.setenv("FRESHET_REDIS__KEY_PREFIX", topic_prefix)
    monkeypatch.setenv("FRESHET_BEHAVIOUR__MAX_PER_MINUTE", "2")
    async with maintained(kafka.bootstrap_servers, redis_server.url, topic_prefix) as world:
        await SpaceRegistry(world.redis.client, world.redis.keys).set_aliases(
            [EntityKind.ITEM, EntityKind.USER], "sum"
        )
        yield world


@pytest.fixture
def freshet(capsys):
    """A function that runs a command beside the test's event loop."""

    async def run(*words: str) -> Ran:
        return await asyncio.to_thread(run_freshet, capsys, *words)

    return run


def histories(world: Maintained) -> HistoryStore:
    return HistoryStore(world.redis.client, world.redis.keys, BEHAVIOUR.bounds, BEHAVIOUR.idle_ms)


async def lived(world: Maintained, *events: HistoryEvent) -> None:
    """Give the user a history and a vector made from it, as the behaviour lane does."""
    (applied,) = await histories(world).apply([HistoryChange(USER, events)], partition_of={USER: 0})
    rev, newest_ms = applied.history.rev, applied.history.newest_ms
    header = VectorHeader(Stage.CONTENT, "float16", 8, 0, rev, rev, -1, newest_ms, newest_ms + 10)
    record = VectorRecord(header, np.full(8, 8**-0.5, np.float16)).encode()
    await world.store.put_vectors("sum", [(USER, rev, record)])


def event(name: str, at_ms: int, action: str = "view", value: float | None = None) -> HistoryEvent:
    return HistoryEvent(at_ms, event_digest(name), f"i{name}", action, value)


def behaviour_records(world: Maintained) -> list:
    kafka = world.settings.kafka
    return read_topic(kafka.bootstrap_servers, f"{kafka.topic_prefix}{Topic.USER_BEHAVIOUR}")


def decoded(record) -> list:
    return list(
        decode_behaviour(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=record.timestamp,
            now_ms=record.timestamp,
            limits=BEHAVIOUR.limits,
        ).events
    )


@asynccontextmanager
async def lanes_that_erase(world: Maintained) -> AsyncIterator[None]:
    """Do what the behaviour and the encode lane do with the first erasure that comes."""

    async def run() -> None:
        def erasure() -> Erasure | None:
            events = [one for record in behaviour_records(world) for one in decoded(record)]
            return next((one for one in events if isinstance(one, Erasure)), None)

        found = await asyncio.to_thread(wait_until_blocking, erasure, 20.0)
        assert found is not None
        (applied,) = await histories(world).apply(
            [HistoryChange(found.user, (), found.at_ms)], partition_of={found.user: 0}
        )
        await world.store.put_vectors("sum", [(found.user, applied.history.rev, None)])
        await GateStore(world.redis.client, world.redis.keys).delete([found.user])
        await world.emitter.emit(
            erasure_messages(found.user, applied.history, partition=0, now_ms=found.at_ms)
        )
        await world.drain()

    lanes = asyncio.create_task(run())
    try:
        yield
        await lanes
    finally:
        lanes.cancel()


async def test_produce_sends_a_mixed_file_to_both_topics(
    world: Maintained, freshet, tmp_path
) -> None:
    view = {"type": "user.behaviour", "user_id": "7", "item_id": "42", "action": "view"}
    lines = [
        {"type": "item.upserted", "item_id": "42", "version": 7, "item": {"title": "Heat"}},
        *({**view, "event_id": f"e{n}"} for n in range(5)),
        {**view, "event_id": "e5", "action": "hum"},
        {"type": "user.erased", "user_id": "8"},
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    ran = await freshet("produce", str(file), "--batch-events", "3", "--json")

    summary = json.loads(ran.out)
    assert (summary["delivered"], summary["invalid"], summary["undelivered"]) == (7, 1, 0)
    assert ran.err.startswith("freshet: line 7: unknown_action: ")
    sent = [decoded(record) for record in behaviour_records(world)]
    assert sorted(len(events) for events in sent) == [1, 2, 3]
    assert await world.last(Topic.CATALOG_ITEMS, EntityKey.item("42")) is not None


async def test_a_batch_may_not_be_larger_than_the_lane_takes(
    world: Maintained, freshet, tmp_path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"type": "user.erased", "user_id": "8"}\n')

    ran = await freshet("produce", str(file), "--batch-events", "1001")

    assert ran.code == 2
    assert "batch_events" in ran.err


async def test_explain_tells_a_users_history_vectors_and_the_gates_mind(
    world: Maintained, freshet
) -> None:
    await lived(
        world,
        event("1", AT_MS - 70_000, "rate", 9.0),
        event("2", AT_MS, "view"),
        event("3", AT_MS + 1_000, "like"),
    )
    await GateStore(world.redis.client, world.redis.keys).store(
        [
            (
                USER,
                GateState(
                    decided_rev=5,
                    decided_ms=AT_MS,
                    reason=GateReason.TOO_SOON,
                    new_events=2,
                    new_weight=1.5,
                    drift=0.25,
                    asked_rev=3,
                    asked_ms=AT_MS,
                    calls=4,
                    calls_that_day=1,
                ).encode(),
            )
        ],
        60_000,
    )
    await GateStore(world.redis.client, world.redis.keys).add_call("20130614")

    shown = await freshet("explain", "user:7")
    as_json = await freshet("explain", "user:7", "--json")

    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == "user:7: live from 3 interactions"
    assert any("3 of at most 200 interactions, newest 2013-06-14T20:15:01" in it for it in lines)
    assert any(it.endswith("; 1 minutes reached the limit of 2 a minute") for it in lines)
    assert "did       2013-06-14T20:13:50.000+00:00 rate item:i1 9" in lines
    assert "gate      too_soon at rev 5: 2 new events of weight 1.5, drift 0.250" in lines
    assert (
        "gate      asked 4 times, last at rev 3 (1 that day); "
        "all users: 1 of 10000 calls on 20130614" in lines
    )
    assert any(it.startswith("vector    sum (active): rev ") for it in lines)
    told = json.loads(as_json.out)
    assert (told["history"]["events"], told["history"]["full_minutes"]) == (3, 1)
    assert [it["item"] for it in told["history"]["newest"]] == ["i3", "i2", "i1"]
    assert (told["gate"]["reason"], told["gate"]["drift"]) == ("too_soon", 0.25)
    assert told["budget"] == {"day": "20130614", "calls": 1, "calls_per_day": 10_000}


async def test_explain_shows_what_was_written_about_a_user(world: Maintained, freshet) -> None:
    await lived(world, event("1", AT_MS))
    await world.learn(USER, content(7), individual(7))

    ran = await freshet("explain", "user:7")

    assert ran.out.startswith("user:7: live from 1 interactions, written about\n")
    assert "register  individual version 7, written by model-a" in ran.out


async def test_explain_says_as_of_when_a_user_was_erased(world: Maintained, freshet) -> None:
    await lived(world, event("1", AT_MS))
    await histories(world).apply([HistoryChange(USER, (), AT_MS)], partition_of={USER: 0})

    ran = await freshet("explain", "user:7")

    assert ran.code == 0
    assert ran.out.startswith("user:7: erased (erased as of 2013-06-14T20:15:00.000+00:00 (")
    assert "did " not in ran.out


async def test_explain_remembers_an_erasure_by_the_document_when_the_mark_expired(
    world: Maintained, freshet
) -> None:
    await world.learn(USER, content(7), removed(8))

    ran = await freshet("explain", "user:7")

    assert ran.out.startswith("user:7: erased (erased as of 1970-01-01T00:00:01.008+00:00 (")


async def test_explain_of_an_unknown_user(world: Maintained, freshet) -> None:
    ran = await freshet("explain", "user:nobody")

    assert ran.code == 1
    assert ran.out.startswith("user:nobody: nothing is known\n")


async def test_get_shows_a_users_vector(world: Maintained, freshet) -> None:
    await lived(world, event("1", AT_MS))

    ran = await freshet("get", "user:7", "--json")

    facts = json.loads(ran.out)
    assert (facts["found"], facts["space"], facts["event_time_ms"]) == (True, "sum", AT_MS)


async def test_erase_waits_until_nothing_is_left(world: Maintained, freshet) -> None:
    await lived(world, event("1", AT_MS))
    await world.learn(USER, content(7), individual(7))
    await GateStore(world.redis.client, world.redis.keys).store(
        [(USER, GateState().encode())], 60_000
    )

    async with lanes_that_erase(world):
        ran = await freshet("erase", "user:7", "--wait", "30")

    assert ran.code == 0, ran.err
    assert ran.out.startswith("user:7 is erased as of ")
    (history,) = await histories(world).load([USER])
    stored = await world.store.load_stored(USER)
    assert history is not None
    assert history.events == ()
    assert stored is not None
    assert stored.vectors == {}
    assert stored.document.individual is None
    got = await freshet("get", "user:7")
    assert got.code == 1


async def test_erase_fails_and_names_what_is_left_when_no_lane_runs(
    world: Maintained, freshet
) -> None:
    await lived(world, event("1", AT_MS))

    ran = await freshet("erase", "user:7", "--wait", "0.5", "--json")

    told = json.loads(ran.out)
    assert ran.code == 1
    assert told["left"] == ["history", "vectors", "knowledge"]
    assert len(behaviour_records(world)) == 1


async def test_erase_may_only_send(world: Maintained, freshet) -> None:
    ran = await freshet("erase", "user:7", "--no-wait")

    assert ran.code == 0
    assert ran.out.startswith("the erasure of user:7 as of ")
    ((erasure,),) = [decoded(record) for record in behaviour_records(world)]
    assert isinstance(erasure, Erasure)


async def test_only_users_can_be_erased(world: Maintained, freshet) -> None:
    ran = await freshet("erase", "item:42")

    assert ran.code == 2
    assert "only user:<id> can be erased" in ran.err
    assert behaviour_records(world) == []
