"""Who gets a place among the calls in flight."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from streams.lanes.call_places import CallPlaces


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Callers:
    """Callers of places by name, each with a claim that a test may change."""

    def __init__(self, places: int) -> None:
        self.places = CallPlaces(places)
        self.claims: dict[str, tuple[float, float]] = {}
        self.holding: list[str] = []
        self._over: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def call(self, name: str, claim: tuple[float, float] = (0, 0)) -> None:
        self.claims[name] = claim
        self._over[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name))

    async def end(self, name: str) -> None:
        self._over[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()

    async def _run(self, name: str) -> None:
        async with self.places.place(lambda: self.claims[name]):
            self.holding.append(name)
            try:
                await self._over[name].wait()
            finally:
                self.holding.remove(name)


async def test_a_free_place_goes_to_the_greatest_claim_of_that_moment():
    callers = Callers(1)
    for name, claim in (("a", (1, 0)), ("b", (0.5, 9)), ("c", (0.5, 8)), ("d", (0.1, 0))):
        callers.call(name, claim)
    await settle()
    callers.claims["d"] = (0.9, 0)

    order = []
    while callers.holding:
        order += callers.holding
        await callers.end(callers.holding[0])

    assert order == ["a", "d", "b", "c"]


async def test_of_equal_claims_the_first_goes_first():
    callers = Callers(2)
    for name in "abcd":
        callers.call(name)
    await settle()

    await callers.end("a")

    assert callers.holding == ["b", "c"]


async def test_a_place_that_came_together_with_a_cancellation_is_not_lost():
    callers = Callers(1)
    for name in "abc":
        callers.call(name)
    await settle()

    callers._over["a"].set()
    await asyncio.sleep(0)  # a ends
    callers._tasks["b"].cancel()
    await settle()

    assert callers.holding == ["c"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "end", "cancel", "step"]), st.integers(0, 5)),
        max_size=60,
    ),
    st.integers(1, 3),
)
async def test_places_are_neither_lost_nor_lent_twice(steps, places):
    callers = Callers(places)
    made = 0
    for step, number in steps:
        alive = [name for name, task in callers._tasks.items() if not task.done()]
        name = alive[number % len(alive)] if alive else ""
        match step:
            case "call":
                callers.call(str(made), (number, 0))
                made += 1
            case "end" if name:
                callers._over[name].set()
            case "cancel" if name:
                callers._tasks[name].cancel()
            case _:
                await asyncio.sleep(0)
        assert len(callers.holding) <= places

    await settle()
    alive = [name for name, task in callers._tasks.items() if not task.done()]
    assert len(callers.holding) == min(places, len(alive))
    for name in alive:
        await callers.cancel(name)
    for name in range(places):
        callers.call(f"last {name}")
    await settle()
    assert len(callers.holding) == places, "all places are free again"
    for task in callers._tasks.values():
        task.cancel()
    await asyncio.gather(*callers._tasks.values(), return_exceptions=True)
