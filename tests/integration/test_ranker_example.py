"""The example of a ranker, against a real Redis."""

import json

import numpy as np
import pytest
from redis.asyncio import Redis

from deploy.examples import ranker
from schemas.entities import EntityKey, EntityKind
from tests.live_builders import space_record, vector
from workers.live.connection import connect
from workers.live.entity_store import EntityStore
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors
from workers.live.space_registry import SpaceRegistry

USER, ITEMS = "user:7", ["item:42", "item:43"]
DIM = 6


async def deployed(redis: Redis, keys: Keys, space: str) -> None:
    """A space with a user and the first of two items."""
    registry, store = SpaceRegistry(redis, keys), EntityStore(redis, keys)
    await registry.put(space_record(space, DIM, default=(0.5,) * DIM))
    for kind in (EntityKind.ITEM, EntityKind.USER):
        await registry.set_alias(kind, space)
    random = np.random.default_rng(0)
    for rev, key in enumerate([USER, ITEMS[0]], start=1):
        values = random.standard_normal(DIM)
        await store.put_vectors(space, [(EntityKey.parse(key), rev, vector(rev, values))])


@pytest.mark.parametrize("space", ["learn-1", "reki-1"])
async def test_it_ranks_and_logs_what_it_was_served(
    redis_server, topic_prefix, monkeypatch, capsys, space: str
):
    keys = Keys(topic_prefix)
    async with connect(redis_server.url) as redis:
        await deployed(redis, keys, space)
    monkeypatch.setattr(
        ranker, "LiveVectors", lambda url: LiveVectors(url, key_prefix=topic_prefix)
    )

    ranker.main(redis_server.url, USER, *ITEMS)

    *scores, user, first, second = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[1] for line in scores) == ITEMS
    assert float(scores[0].split()[0]) > float(scores[1].split()[0])
    served = json.loads(first)
    assert (served["key"], served["space"], served["rev"]) == (ITEMS[0], space, 2)
    assert served["content_version"] == 7
    assert json.loads(user)["found"] is True
    assert json.loads(second)["found"] is False
