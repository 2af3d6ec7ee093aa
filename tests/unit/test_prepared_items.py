"""Items as towers take them: what is remembered is served only while the store has the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lanes.prepared_items import PreparedItems
from tests.behaviour_builders import mean_space
from tests.fakes.histories import StoredItemVectors
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.live_builders import item, vector
from workers.towers.recency_mean import RecencyMean

RAW = mean_space("raw")
ROW_BYTES = 2 * 4


class Halving:
    """A tower that prepares half of the first two values of items in the raw space."""

    prepared_dim = 2

    def __init__(self, space=None) -> None:
        self.space = space or mean_space("learned")
        self.input_space = RAW
        self.prepared: list[float] = []

    def prepare(self, items):
        self.prepared += items[:, 0].tolist()
        return items[:, :2] / 2

    def apply(self, items, rows, weights, at_ms):
        raise AssertionError("items are prepared without any user")


class World:
    def __init__(self, *, remembered: int = 100) -> None:
        self.store = InMemoryEntityStore()
        self.vectors = StoredItemVectors(self.store)
        self.tower = Halving()
        self.items = PreparedItems(
            self.vectors, InlineExecutor(), remembered_bytes=remembered * ROW_BYTES
        )

    def put(self, id_: object, value: float, *, rev: int = 1, space: str = "raw") -> None:
        self.store.vectors[space, item(id_)] = vector(rev, (value, 1.0, 0.0, 0.0))

    async def read(self, *ids: object, tower=None):
        """Return the first value of each item, None for those without a vector."""
        values, found = await self.items.read(tower or self.tower, [item(id_) for id_ in ids])
        assert values.shape == (len(ids), 2)
        assert not values[~found].any()
        pairs = zip(values[:, 0].tolist(), found.tolist(), strict=True)
        return [value if there else None for value, there in pairs]


@pytest.fixture
def world() -> World:
    return World()


async def test_an_item_met_again_is_neither_sent_nor_prepared_again(world):
    world.put(1, 2.0)
    world.put(2, 4.0)

    assert await world.read(1) == [1.0]
    assert await world.read(2, 1) == [2.0, 1.0]

    assert world.vectors.sent == [item(1), item(2)]
    assert world.tower.prepared == [2.0, 4.0]


async def test_a_new_revision_is_served_from_the_next_read_on(world):
    world.put(1, 2.0)
    await world.read(1)

    world.put(1, 6.0, rev=2)

    assert await world.read(1) == [3.0]
    assert await world.read(1) == [3.0]
    assert world.tower.prepared == [2.0, 6.0]


async def test_what_was_taken_back_is_not_served_and_comes_back_anew(world):
    world.put(1, 2.0)
    await world.read(1)

    del world.store.vectors["raw", item(1)]
    assert await world.read(1) == [None]
    world.put(1, 8.0, rev=3)

    assert await world.read(1) == [4.0]


async def test_what_changes_while_it_is_prepared_is_read_again_the_next_time(world):
    world.put(1, 2.0)
    world.vectors.after_read = lambda: world.put(1, 6.0, rev=2)

    first = await world.read(1)
    world.vectors.after_read = None

    assert first == [1.0]
    assert await world.read(1) == [3.0]


async def test_the_longest_known_go_when_it_is_too_much():
    world = World(remembered=2)
    for number in (1, 2, 3):
        world.put(number, float(number))

    await world.read(1, 2)
    await world.read(3)
    world.vectors.sent.clear()

    assert await world.read(1, 2, 3) == [0.5, 1.0, 1.5]
    assert world.vectors.sent == [item(1)]


async def test_more_items_than_are_remembered_are_read_all_the_same():
    world = World(remembered=1)
    for number in range(5):
        world.put(number, float(number))

    assert await world.read(*range(5)) == [0.0, 0.5, 1.0, 1.5, 2.0]


async def test_another_tower_of_a_spaces_name_starts_with_nothing(world):
    world.put(1, 2.0)
    await world.read(1)
    other = Halving()

    await world.read(1, tower=other)

    assert other.prepared == [2.0]


async def test_what_was_remembered_for_a_tower_goes_with_it(world):
    world.put(1, 2.0)
    await world.read(1)

    world.items.follow([world.tower])
    await world.read(1)
    assert world.tower.prepared == [2.0]
    world.items.follow([])
    await world.read(1)

    assert world.tower.prepared == [2.0, 2.0]


async def test_a_tower_that_prepares_nothing_reads_its_space_each_time(world):
    tower = RecencyMean(mean_space("pca"), 1.0)
    world.put(1, 2.0, space="pca")

    await world.items.read(tower, [item(1), item(2)])
    values, found = await world.items.read(tower, [item(1), item(2)])

    assert values.tolist() == [[2.0, 1.0, 0.0, 0.0], [0.0] * 4]
    assert found.tolist() == [True, False]
    assert world.vectors.sent == [item(1)] * 2


@given(
    st.integers(0, 3),
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 4)),
            st.tuples(st.just("delete"), st.integers(0, 4)),
            st.tuples(st.just("read"), st.lists(st.integers(0, 4), unique=True, max_size=5)),
        ),
        max_size=30,
    ),
)
async def test_a_read_is_of_what_the_store_has_at_that_moment(remembered, steps):
    world = World(remembered=remembered)
    has: dict[int, float] = {}
    for rev, (what, of) in enumerate(steps, start=1):
        if what == "read":
            assert await world.read(*of) == [has.get(number) for number in of]
        elif what == "put":
            world.put(of, float(rev), rev=rev)
            has[of] = rev / 2
        else:
            world.store.vectors.pop(("raw", item(of)), None)
            has.pop(of, None)
