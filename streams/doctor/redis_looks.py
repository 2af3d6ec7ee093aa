"""What the doctor looks at in Redis: the server, the view in it and the spaces."""

import asyncio
from collections.abc import AsyncIterator

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.spaces import Space
from streams.doctor.finding import Finding
from streams.redis_clients import OpenRedis, open_redis
from streams.settings import Settings
from streams.user_parts import history_store
from workers.encoding.representation import CONTENT, TITLE
from workers.live.entity_store import EntityStore
from workers.live.live_vectors import AsyncLiveVectors
from workers.live.memory import EntityBytes, bytes_per_entity, bytes_per_user, server_facts
from workers.live.space_registry import SpaceRegistry
from workers.live.view_marker import ViewMarker
from workers.live.view_partitions import ViewPartitions

REFIT_FROM_ITEMS = 1_000

_SAMPLED_ENTITIES = 200
_COUNTED_VECTORS = 100_000


async def look_at_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Yield role, memory, eviction policy, bytes per item and per user."""
    async with open_redis(settings.redis) as redis:
        facts = await server_facts(redis.client)
        used = facts.used_memory_bytes / 2**20
        limit = f"{facts.maxmemory_bytes / 2**20:.0f} MB" if facts.maxmemory_bytes else "no limit"
        yield Finding(
            facts.role == "master",
            "redis",
            f"version {facts.version}, {facts.role}, {used:.0f} MB used, {limit}",
            "" if facts.role == "master" else "lanes must write to the primary",
        )
        keeps = facts.maxmemory_policy == "noeviction"
        yield Finding(
            keeps,
            "redis",
            f"maxmemory-policy is {facts.maxmemory_policy}",
            ""
            if keeps
            else "set maxmemory-policy noeviction: evicted documents are lost work, and silently",
        )
        async for finding in _bytes_per_item(redis):
            yield finding
        async for finding in _bytes_per_user(settings, redis):
            yield finding


async def _bytes_per_item(redis: OpenRedis) -> AsyncIterator[Finding]:
    sample: list[EntityKey] = []
    async for key in EntityStore(redis.client, redis.keys).scan():
        if key.kind is EntityKind.ITEM:
            sample.append(key)
        if len(sample) >= _SAMPLED_ENTITIES:
            break
    if not sample:
        yield Finding(True, "redis", "no items yet")
        return
    spaces = sorted(await SpaceRegistry(redis.client, redis.keys).spaces())
    cost = await bytes_per_entity(redis.client, redis.keys, sample, spaces)
    yield Finding(True, "redis", _spelled(cost, "an item"))


async def _bytes_per_user(settings: Settings, redis: OpenRedis) -> AsyncIterator[Finding]:
    store = history_store(settings.behaviour, redis.client, redis.keys)
    sample: list[EntityKey] = []
    async for user in store.scan():
        sample.append(user)
        if len(sample) >= _SAMPLED_ENTITIES:
            break
    if not sample:
        return
    spaces = await SpaceRegistry(redis.client, redis.keys).spaces()
    with_users = sorted(
        name for name, record in spaces.items() if EntityKind.USER in record.space.kinds
    )
    cost = await bytes_per_user(redis.client, redis.keys, sample, with_users)
    yield Finding(True, "redis", _spelled(cost, "a user"))


def _spelled(cost: EntityBytes, whose: str) -> str:
    families = ", ".join(f"{name} {size:.0f}" for name, size in cost.by_family.items())
    return f"{cost.total:.0f} bytes {whose} (of {cost.sampled}): {families}"


async def look_at_view(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether Redis holds the whole view."""
    async with open_redis(settings.redis) as redis:
        stamped = await ViewMarker(redis.client, redis.keys).present()
        verified = await ViewPartitions(redis.client, redis.keys).load()
        run_id = (await server_facts(redis.client)).run_id
    lost = [p for p in range(settings.kafka.partitions) if verified.get(p) != run_id]
    whole = stamped and not lost
    yield Finding(
        whole,
        "view",
        "Redis holds the whole view"
        if whole
        else f"not verified since Redis started: partitions {lost or 'none'}, "
        f"{'stamped' if stamped else 'not stamped'}",
        "" if whole else "start the encode lane: it verifies the view, or rebuilds it",
    )


async def look_at_spaces(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the active space, and whether it is time for a refit."""
    from workers.adaptors.space_files import list_spaces, load_space

    directory = settings.encode.spaces_dir
    async with open_redis(settings.redis) as redis:
        registry = SpaceRegistry(redis.client, redis.keys)
        known = await registry.spaces()
        active = await registry.alias(EntityKind.ITEM)
        if active is None:
            yield Finding(
                False,
                "spaces",
                "no space is active for items",
                "run: freshet spaces fit, create and activate",
            )
            return
        readable = active in await asyncio.to_thread(list_spaces, directory)
        yield Finding(
            active in known and readable,
            "spaces",
            f"{active} is active for items, of {len(known)} known",
            "" if readable else f"{directory} does not hold it: FRESHET_ENCODE__SPACES_DIR",
        )
        if not readable:
            return
        space = (await asyncio.to_thread(load_space, directory, active)).space
        if fitted_without_knowledge(space):
            async for finding in _refit(redis, active):
                yield finding


def fitted_without_knowledge(space: Space) -> bool:
    """Whether no item of the fit had any knowledge part. Pure."""
    factors = [part for part in space.parts if part not in (TITLE, CONTENT)]
    counts = [space.fitted_on.get(f"items_with_{part}") for part in factors]
    return bool(space.fitted_on) and not any(isinstance(n, int) and n > 0 for n in counts)


async def _refit(redis: OpenRedis, active: str) -> AsyncIterator[Finding]:
    live = AsyncLiveVectors(redis.client, key_prefix=redis.keys.prefix)
    with_knowledge = looked_at = 0
    async with live.pin() as view:
        async for keys, vectors in view.iterate(EntityKind.ITEM.value):
            looked_at += len(keys)
            with_knowledge += int((vectors.stages >= Stage.COLLECTIVE).sum())
            if with_knowledge >= REFIT_FROM_ITEMS or looked_at >= _COUNTED_VECTORS:
                break
    enough = with_knowledge >= REFIT_FROM_ITEMS
    yield Finding(
        True,
        "spaces",
        f"{active} was fitted without knowledge; {with_knowledge} items have some by now",
        "fit a new space on what is known: freshet spaces fit NAME --knowledge topic"
        if enough
        else "",
    )
