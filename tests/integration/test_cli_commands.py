"""Commands against a real Kafka and Redis, as an operator gives them."""

import asyncio
import json

import pytest
import redis as redis_py

from schemas.entities import EntityKind
from schemas.topics import Topic
from schemas.trace import TraceEntry
from streams import doctor
from streams.doctor.redis_looks import fitted_without_knowledge
from streams.user_parts import history_store
from tests.cli_runner import Ran, run_freshet
from tests.fakes.encoding import SumAdaptor
from tests.history_builders import event, user
from tests.maintained import HEAT, Maintained, content, individual, maintained, removed
from workers.live.history_records import HistoryChange
from workers.live.seen import SeenStore
from workers.live.seen_record import Seen
from workers.live.space_registry import SpaceRegistry
from workers.live.traces import TraceStore


@pytest.fixture
async def world(kafka, redis_server, topic_prefix, monkeypatch, tmp_path):
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("FRESHET_KAFKA__TOPIC_PREFIX", topic_prefix)
    monkeypatch.setenv("FRESHET_KAFKA__PARTITIONS", "2")
    monkeypatch.setenv("FRESHET_REDIS__URL", redis_server.url)
    monkeypatch.setenv("FRESHET_REDIS__KEY_PREFIX", topic_prefix)
    monkeypatch.setenv("FRESHET_ENCODE__SPACES_DIR", str(tmp_path / "spaces"))
    async with maintained(kafka.bootstrap_servers, redis_server.url, topic_prefix) as world:
        await SpaceRegistry(world.redis.client, world.redis.keys).set_alias(EntityKind.ITEM, "sum")
        yield world


@pytest.fixture
def freshet(capsys):
    """A function that runs a command beside the test's event loop."""

    async def run(*words: str) -> Ran:
        return await asyncio.to_thread(run_freshet, capsys, *words)

    return run


async def test_produce_sends_the_valid_lines_of_a_file(
    world: Maintained, freshet, tmp_path
) -> None:
    file = tmp_path / "films.jsonl"
    file.write_text('{"id": 42, "v": 7, "title": "Heat"}\n{"id": 43, "title": "no version"}\n')

    ran = await freshet("produce", str(file), "--id-field", "id", "--version-field", "v", "--json")

    summary = json.loads(ran.out)
    assert ran.code == 1
    assert (summary["delivered"], summary["invalid"], summary["undelivered"]) == (1, 1, 0)
    assert ran.err == "freshet: line 2: bad_version: v: missing\n"
    sent = await world.last(Topic.CATALOG_ITEMS, HEAT)
    assert json.loads(sent or b"null")["item"] == {"title": "Heat"}


async def test_get_shows_the_vector_that_rankers_read(world: Maintained, freshet) -> None:
    await world.learn(HEAT, content(7), individual(7))

    shown = await freshet("get", "item:42")
    as_json = await freshet("get", "item:42", "--json")

    assert shown.code == 0
    assert "item:42: individual vector in sum (8 values:" in shown.out
    facts = json.loads(as_json.out)
    assert (facts["space"], facts["stage"], facts["content_version"]) == ("sum", "individual", 7)
    assert len(facts["vector"]) == 8
    assert facts["age_ms"] >= 0


async def test_get_of_what_has_no_vector_points_to_explain(world: Maintained, freshet) -> None:
    ran = await freshet("get", "item:nosuch")

    assert ran.code == 1
    assert (
        ran.err == "freshet: item:nosuch has no vector in sum; try: freshet explain item:nosuch\n"
    )


async def test_explain_tells_what_came_what_became_of_it_and_why(
    world: Maintained, freshet
) -> None:
    await world.learn(HEAT, content(7), individual(6))
    await SeenStore(world.redis.client, world.redis.keys).store(
        [(HEAT, Seen(8, "ab" * 16, removed=False, at_ms=1_700_000_000_000))]
    )
    await TraceStore(world.redis.client, world.redis.keys).append(
        [(HEAT, TraceEntry(1_700_000_000_000, "knowledge", "rejected", 7, "too_short", "3 words"))]
    )

    shown = await freshet("explain", "item:42")
    as_json = await freshet("explain", "item:42", "--json")

    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == "item:42: live with stage individual, knowledge 1 versions behind"
    assert any(line.startswith("received  version 8, content abab") for line in lines)
    assert any(line.startswith("register  content version 7, fingerprint ") for line in lines)
    assert any("written by model-a with prompt prompt-a" in line for line in lines)
    assert any(line.startswith("text      title [") and line.endswith("] Heat") for line in lines)
    assert any(line.startswith("vector    sum (active): rev 2, content 7") for line in lines)
    assert (
        "outcome   2023-11-14T22:13:20.000+00:00 knowledge version 7 rejected (too_short: 3 words)"
        in lines
    )
    told = json.loads(as_json.out)
    assert told["document"]["content"]["version"] == 7
    assert told["outcomes"][0]["reason"] == "too_short"


async def test_explain_of_a_removed_and_of_an_unknown_item(world: Maintained, freshet) -> None:
    await world.learn(HEAT, content(7), removed(8))

    gone = await freshet("explain", "item:42")
    unknown = await freshet("explain", "item:nosuch")

    assert gone.code == 0
    assert gone.out.startswith("item:42: removed from the catalogue\n")
    assert unknown.code == 1
    assert unknown.out == "item:nosuch: nothing is known\n"


async def test_a_paused_lane_goes_on_after_resume(world: Maintained, freshet) -> None:
    registry = SpaceRegistry(world.redis.client, world.redis.keys)
    await registry.pause("items", "150 of 200 records invalid")

    first = await freshet("lane", "resume", "items")
    second = await freshet("lane", "resume", "items")

    assert first.out == "lane items goes on; it was paused: 150 of 200 records invalid\n"
    assert second.out == "lane items was not paused\n"
    assert await registry.paused("items") is None


async def test_maintenance_commands_report_in_words_and_in_json(world: Maintained, freshet) -> None:
    await world.learn(HEAT, content(7))

    refreshed = await freshet("refresh", "--where", "prompt!=current", "--dry-run")
    swept = await freshet("sweep", "--json")
    audited = await freshet("audit", "--json")
    forgotten = await freshet("forget", "item:42")
    known = await freshet("forget", "item:42", "--force", "--json")

    assert refreshed.out.startswith(
        "would ask for knowledge about 1 of 1 entities, about 600 token"
    )
    assert json.loads(swept.out) == {
        "swept": 0,
        "kept": 0,
        "changed": 0,
        "dry_run": False,
        "histories": {"idle": 0, "marks": 0, "changed": 0},
    }
    assert json.loads(audited.out) == {
        "compared": 1,
        "differences": [],
        "repaired": False,
        "histories": {"compared": 0, "behind": 0, "ahead": 0},
    }
    assert forgotten.out == "item:42 is forgotten (rev 2); send it again\n"
    assert json.loads(known.out)["was_known"] is False


async def test_an_audit_that_finds_something_ends_with_1(world: Maintained, freshet) -> None:
    await world.learn(HEAT, content(7))
    await world.store.delete([HEAT], ["sum"])

    found = await freshet("audit")
    repaired = await freshet("audit", "--repair")
    await world.drain()
    sound = await freshet("audit")

    assert found.code == 1
    assert "item:42: Redis is behind (rev 0, entities 1)" in found.out
    assert (repaired.code, sound.code) == (0, 0)


async def test_the_doctor_names_what_is_wrong_and_what_to_do(world: Maintained, freshet) -> None:
    histories = history_store(world.settings.behaviour, world.redis.client, world.redis.keys)
    seen = HistoryChange(user(7), (event(1),))
    await histories.apply([seen], partition_of={seen.user: 0})

    ran = await freshet("doctor", "--no-encoder", "--json")

    assert ran.code == 1
    findings = json.loads(ran.out)["findings"]
    sound = {finding["subject"] for finding in findings if finding["ok"]}
    advice = {finding["subject"]: finding["advice"] for finding in findings if not finding["ok"]}
    assert {"kafka", "topics", "redis"} <= sound
    assert any("bytes a user (of 1): history " in finding["detail"] for finding in findings)
    assert advice["lane encode"] == "run: freshet lane encode"
    assert "encode lane" in advice["view"]
    assert "FRESHET_ENCODE__SPACES_DIR" in advice["spaces"]
    assert "FRESHET_KNOWLEDGE__RECORDED_FILE" in advice["writer"]


async def test_the_doctor_looks_on_when_a_dependency_is_dead(world: Maintained) -> None:
    dead = world.settings.model_copy(
        update={
            "redis": world.settings.redis.model_copy(update={"url": _url("redis://127.0.0.1:1")})
        }
    )

    findings = await doctor.run(dead, encoder=False)

    redis = [finding for finding in findings if finding.subject == "redis"]
    assert [finding.ok for finding in redis] == [False]
    assert "FRESHET_REDIS__URL" in redis[0].advice
    assert any(finding.subject == "topics" and finding.ok for finding in findings)


def _url(text: str):
    from pydantic import SecretStr

    return SecretStr(text)


async def test_the_doctor_wants_a_redis_that_evicts_nothing(own_redis, world: Maintained) -> None:
    server = own_redis()
    with redis_py.Redis(port=server.port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    evicting = world.settings.model_copy(
        update={"redis": world.settings.redis.model_copy(update={"url": _url(server.url)})}
    )

    findings = await doctor.run(evicting, encoder=False)

    (policy,) = [finding for finding in findings if "maxmemory-policy" in finding.detail]
    assert not policy.ok
    assert "noeviction" in policy.advice


async def test_the_doctor_tells_what_an_item_costs(world: Maintained) -> None:
    await world.learn(HEAT, content(7))

    findings = await doctor.run(world.settings, encoder=False)

    (cost,) = [finding for finding in findings if "bytes an item" in finding.detail]
    assert cost.ok
    assert "vec:sum" in cost.detail


def test_a_fit_without_knowledge_is_told_by_its_parts() -> None:
    space = SumAdaptor().space

    def fitted(**counts: int) -> bool:
        return fitted_without_knowledge(space.model_copy(update={"fitted_on": counts}))

    assert fitted(items=9, items_with_title=9, items_with_mood=0)
    assert not fitted(items=9, items_with_title=9, items_with_mood=1)
    assert not fitted()
