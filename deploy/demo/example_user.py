"""A user worth looking at in a kept demo: written about once, and with another taste since."""

from collections import Counter
from collections.abc import Sequence

from deploy.demo.schedule import Schedule
from deploy.demo.user_plans import UserEvent
from schemas.entities import EntityKey, EntityKind
from streams.redis_clients import open_redis
from streams.settings import RedisSettings
from workers.knowledge.preference_gate import GateState
from workers.live.gate_store import GateStore

_LOOKED_AT = 1_000


async def example_user(schedule: Schedule, redis: RedisSettings) -> str:
    """Return the user whose taste moved most since a language model was asked about it.

    The one with most events when nobody was asked about. Raises Transient.
    """
    users = _most_active(schedule)
    async with open_redis(redis) as opened:
        store = GateStore(opened.client, opened.keys)
        stored = await store.load([EntityKey(EntityKind.USER, user) for user in users])
    drifts = [_drift(state) for state in stored]
    return users[max(range(len(users)), key=lambda place: (drifts[place], -place))]


def _most_active(schedule: Schedule) -> Sequence[str]:
    counts = Counter(event.user_id for event in schedule.history)
    counts.update(event.user_id for event in schedule.summer if isinstance(event, UserEvent))
    return [user for user, _ in counts.most_common(_LOOKED_AT) if user not in schedule.erased]


def _drift(stored: bytes | None) -> float:
    state = None if stored is None else GateState.decode(stored)
    return -1.0 if state is None or not state.was_asked else state.drift or 0.0
