"""What works on users' histories, made the same way for everybody who does.

The behaviour lane, the lane of a new space and the rebuild of a whole deployment differ in where
they read items and which spaces they write, and in nothing else.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from schemas.topics import DAY_MS
from streams.clock import SystemClock
from streams.history_restore import HistoryRestore, Progress
from streams.lanes.prepared_items import ItemVectorsPort
from streams.lanes.user_vectors import TowersPort, UserVectors
from streams.settings import BehaviourSettings, Settings
from workers.live.awaited_items import AwaitedItems
from workers.live.connection import Client
from workers.live.dirty_histories import DirtyHistories
from workers.live.entity_store import EntityStore
from workers.live.history_store import HistoryStore
from workers.live.item_vectors import ItemVectors
from workers.live.keys import Keys
from workers.towers.load_towers import TowerOptions
from workers.towers.significance import RatingScale, Significance


def significance_of(behaviour: BehaviourSettings) -> Significance:
    """Return what interactions are worth in this deployment."""
    scale = RatingScale(
        neutral=behaviour.rating_neutral, best=behaviour.rating_best, worst=behaviour.rating_worst
    )
    return Significance(behaviour.actions, frozenset(behaviour.rated_actions), scale)


def tower_options(settings: Settings) -> TowerOptions:
    """Return how histories become vectors in this deployment."""
    behaviour = settings.behaviour
    return TowerOptions(
        behaviour.half_life_days * DAY_MS,
        behaviour.negative_share,
        spaces_dir=settings.encode.spaces_dir,
    )


def history_store(behaviour: BehaviourSettings, redis: Client, keys: Keys) -> HistoryStore:
    """Return where histories are kept."""
    return HistoryStore(redis, keys, behaviour.bounds, behaviour.idle_ms)


def user_vectors(
    behaviour: BehaviourSettings,
    redis: Client,
    keys: Keys,
    *,
    towers: TowersPort,
    executor: Executor,
    items: ItemVectorsPort | None = None,
) -> UserVectors:
    """Return who makes user vectors in the spaces of `towers`; `items` default to their vectors."""
    return UserVectors(
        towers=towers,
        items=ItemVectors(redis, keys) if items is None else items,
        awaited=AwaitedItems(redis, keys),
        store=EntityStore(redis, keys),
        significance=significance_of(behaviour),
        clock=SystemClock(),
        executor=executor,
        ttl_ms=behaviour.idle_ms,
    )


def history_restore(
    settings: Settings,
    redis: Client,
    keys: Keys,
    *,
    vectors: UserVectors,
    refresh_spaces: Callable[[], Awaitable[None]],
    on_progress: Progress | None = None,
) -> HistoryRestore:
    """Return who puts histories back, and the vectors made from them."""
    return HistoryRestore(
        settings.kafka,
        histories=history_store(settings.behaviour, redis, keys),
        marks=DirtyHistories(redis, keys),
        vectors=vectors,
        refresh_spaces=refresh_spaces,
        clock=SystemClock(),
        idle_ms=settings.behaviour.idle_ms,
        on_progress=on_progress,
    )
