"""What Redis holds before users act: a space, the vectors of its items, and users' histories."""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.spaces import Space, SpaceRecord, SpaceState
from schemas.vector_record import VectorHeader, VectorRecord
from streams.settings import BehaviourSettings
from streams.user_parts import history_store
from tests.bench.user_events import ITEMS, START_MS, histories, item_id
from workers.knowledge.preference_gate import GateReason, GateState
from workers.live.connection import Client
from workers.live.entity_store import EntityStore
from workers.live.gate_store import GateStore
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry

BENCH_SPACE = Space(
    name="bench",
    kinds=(EntityKind.ITEM, EntityKind.USER),
    encoder_id="none",
    adaptor_id="parts-pca",
    parts=("content",),
    part_dim=384,
    dim=256,
)
_CHUNK = 1_000


async def register(redis: Client, keys: Keys) -> None:
    """Let lanes know of BENCH_SPACE."""
    record = SpaceRecord(
        space=BENCH_SPACE, state=SpaceState.ACTIVE, writer="encode", changed_at_ms=START_MS
    )
    await SpaceRegistry(redis, keys).put(record)


async def put_items(redis: Client, keys: Keys, space: Space) -> None:
    """Write a vector of every item."""
    await _put_vectors(redis, keys, space, [EntityKey.item(item_id(n)) for n in range(ITEMS)])


async def put_histories(redis: Client, keys: Keys, users: int, *, prefix: str = "") -> None:
    """Give users the histories of `user_events.histories`; their vectors are left to be made."""
    store = history_store(BehaviourSettings(), redis, keys)
    rows = histories(users, prefix=prefix)
    while chunk := list(islice(rows, _CHUNK)):
        await store.restore(chunk)


async def put_gone_through(redis: Client, keys: Keys, users: int) -> None:
    """Write all that is kept of users who went through the lane, with a text about each."""
    behaviour = BehaviourSettings()
    await put_histories(redis, keys, users)
    everybody = [user for user, _ in histories(users)]
    await _put_vectors(redis, keys, BENCH_SPACE, everybody, ttl_ms=behaviour.idle_ms)
    taste = np.zeros(BENCH_SPACE.dim, np.float32)
    state = GateState(
        decided_rev=1, reason=GateReason.ASKED_FIRST, drift=0.0, asked_rev=1, calls=1, vector=taste
    ).encode()
    gate = GateStore(redis, keys)
    for start in range(0, users, _CHUNK):
        some = everybody[start : start + _CHUNK]
        await gate.store([(user, state) for user in some], behaviour.idle_ms)


async def _put_vectors(
    redis: Client,
    keys: Keys,
    space: Space,
    entities: Sequence[EntityKey],
    *,
    ttl_ms: int | None = None,
) -> None:
    draw = np.random.default_rng(len(entities))
    header = VectorHeader(1, space.dtype, space.dim, 1, 1, 1, -1, START_MS, START_MS)
    store = EntityStore(redis, keys)
    for start in range(0, len(entities), _CHUNK):
        some = entities[start : start + _CHUNK]
        values = draw.standard_normal((len(some), space.dim)) / np.sqrt(space.dim)
        rows = [
            (entity, 1, VectorRecord(header, value).encode())
            for entity, value in zip(some, values.astype(space.dtype), strict=True)
        ]
        await store.put_vectors(space.name, rows, ttl_ms=ttl_ms)
