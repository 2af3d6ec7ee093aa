"""The lane of one new space among fakes, with the real making of user vectors."""

from pathlib import Path

from streams.backfill import BackfilledItems, OwnTower
from streams.engine.ports import Clock
from streams.lanes.encode_space import EncodeSpaceLane
from streams.lanes.user_vectors import UserVectors
from tests.fakes.emitter import FakeEmitter
from tests.fakes.encoding import FakeSpaces, SumAdaptor
from tests.fakes.histories import InMemoryAwaited, InMemoryHistories, StoredItemVectors
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import BOUNDS, DAY_MS
from workers.towers.load_towers import TowerOptions
from workers.towers.significance import Significance

WEIGHTS = {"view": 1.0, "skip": -1.0}


def space_lane(
    adaptor: SumAdaptor,
    *,
    store: InMemoryEntityStore,
    emitter: FakeEmitter,
    clock: Clock,
    histories: InMemoryHistories | None = None,
    spaces: FakeSpaces | None = None,
) -> EncodeSpaceLane:
    """Return the lane that writes the adaptor's space, by default the only one besides the raw."""
    histories = histories or InMemoryHistories(clock, BOUNDS)
    spaces = spaces or FakeSpaces(adaptor)
    items = StoredItemVectors(store)
    vectors = UserVectors(
        towers=OwnTower(
            adaptor.space.name, spaces, TowerOptions(30.0 * DAY_MS, spaces_dir=Path("spaces"))
        ),
        items=BackfilledItems(items, entities=store, spaces=spaces, executor=InlineExecutor()),
        awaited=InMemoryAwaited(),
        store=store,
        significance=Significance(WEIGHTS),
        clock=clock,
        executor=InlineExecutor(),
        ttl_ms=90 * DAY_MS,
    )
    return EncodeSpaceLane(
        space=adaptor.space.name,
        spaces=spaces,
        store=store,
        histories=histories,
        user_vectors=vectors,
        emitter=emitter,
        clock=clock,
        executor=InlineExecutor(),
    )
