"""refresh, sweep, forget and audit where users are concerned: vectors from histories stay."""

import time

import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import content_fingerprint
from schemas.knowledge import Content, Document, EntityRecord, RequestKind
from schemas.spaces import SpaceRecord, SpaceState
from schemas.topics import DAY_MS, Topic
from streams.emitter import Outgoing
from streams.maintenance.audit import audit
from streams.maintenance.forget import forget
from streams.maintenance.refresh import refresh
from streams.maintenance.sweep import sweep
from tests.fakes.encoding import SumAdaptor
from tests.history_builders import user
from tests.live_builders import vector
from tests.maintained import HEAT, Maintained, content, individual, maintained, removed
from workers.knowledge.load_domain import load_domain
from workers.knowledge.user_prompt import user_prompt_id
from workers.live.space_registry import SpaceRegistry

ANN, BOB = user("ann"), user("bob")
LIVED = SumAdaptor("lived", (EntityKind.ITEM, EntityKind.USER), "histories").space
TASTE = {"liked": [{"item": "42", "title": "Heat", "signal": "loved"}], "disliked": []}


@pytest.fixture
async def world(kafka, redis_server, topic_prefix):
    async with maintained(kafka.bootstrap_servers, redis_server.url, topic_prefix) as world:
        record = SpaceRecord(space=LIVED, state=SpaceState.ACTIVE, writer="encode", changed_at_ms=1)
        await SpaceRegistry(world.redis.client, world.redis.keys).put(record)
        yield world


def taste(version: int) -> Document:
    return Document(content=Content(version, TASTE, content_fingerprint(TASTE), 1_000 + version))


async def live(world: Maintained, key: EntityKey) -> None:
    await world.store.put_vectors("lived", [(key, 1, vector(1))])


async def spaces_of(world: Maintained, key: EntityKey) -> list[str]:
    stored = await world.store.load_stored(key, ["lived", "raw"])
    return [] if stored is None else sorted(stored.vectors)


async def test_refresh_compares_users_with_the_prompt_about_users(world: Maintained) -> None:
    knowledge = world.settings.knowledge
    domain = load_domain(
        knowledge.domain,
        factors=knowledge.factors,
        max_factor_chars=knowledge.max_factor_chars,
        max_tokens=knowledge.max_tokens,
    )
    await world.learn(ANN, taste(7), individual(7, prompt=user_prompt_id(domain)))
    await world.learn(BOB, taste(7), individual(7, prompt="old"))
    await world.learn(HEAT, content(7), individual(7, prompt=user_prompt_id(domain)))

    await refresh(world.settings, ["prompt!=current"])

    requests = {request.entity: request for request in await world.requests()}
    assert set(requests) == {BOB, HEAT}
    assert (requests[BOB].kind, requests[BOB].fields) == (RequestKind.REFRESH, TASTE)


async def test_sweep_forgets_an_erased_users_document_but_not_the_life_since(
    world: Maintained,
) -> None:
    await world.learn(ANN, taste(7), individual(7), removed(8))
    await live(world, ANN)

    report = await sweep(world.settings, now_ms=time.time_ns() // 1_000_000 + 32 * DAY_MS)

    assert report.swept == 1
    assert await world.last(Topic.ENTITIES, ANN) is None
    assert await spaces_of(world, ANN) == ["lived"]


async def test_forgetting_a_users_document_leaves_the_vector_of_the_history(
    world: Maintained,
) -> None:
    await world.learn(ANN, taste(7), individual(7))
    await live(world, ANN)
    before = await spaces_of(world, ANN)

    await forget(world.settings, ANN, force=True)

    assert before == ["lived", "raw"]
    assert await spaces_of(world, ANN) == ["lived"]


async def test_an_audit_that_brings_a_removal_leaves_the_vector_of_the_history(
    world: Maintained,
) -> None:
    await world.learn(ANN, taste(7), individual(7))
    await live(world, ANN)
    behind = EntityRecord(ANN, 9, removed(8), 1)
    await world.emitter.emit([Outgoing(Topic.ENTITIES, ANN.encode(), behind.encode())])

    report = await audit(world.settings, repair=True)

    assert report.repaired
    assert await spaces_of(world, ANN) == ["lived"]
