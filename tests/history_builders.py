"""Users, events and histories as tests of the behaviour side need them."""

from hypothesis import strategies as st

from schemas.entities import EntityKey, EntityKind
from schemas.history import NEVER, History, HistoryBounds, HistoryEvent, event_digest

DAY_MS = 86_400_000
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
"""The beginning of a minute."""

BOUNDS = HistoryBounds()


def user(id_: object) -> EntityKey:
    return EntityKey(EntityKind.USER, str(id_))


def event(
    n: int,
    at_ms: int | None = None,
    *,
    item: object = None,
    action: str = "view",
    value: float | None = None,
) -> HistoryEvent:
    """Event number `n`, a second after the one before unless it says when."""
    at = START_MS + 1_000 * n if at_ms is None else at_ms
    return HistoryEvent(at, event_digest(f"e{n}"), str(n if item is None else item), action, value)


def history_of(*events: HistoryEvent, bounds: HistoryBounds = BOUNDS) -> History:
    return History().join(events, NEVER, bounds)


# Few times, ids and payloads, so that ties, repetitions and full minutes are frequent. Bytes above
# 0x7f and texts of several lengths, because that is where comparisons go wrong.
times = st.one_of(
    st.integers(0, 4).map(lambda n: START_MS + n),
    st.sampled_from([-60_001, -60_000, -1, 59_999, 60_000, 60_001, 119_999, 120_000]).map(
        lambda offset: START_MS + offset
    ),
    st.sampled_from([0, 1, MINUTE_MS, 2**32 - 1, 2**32, 2**33 + 1]),
)
digests = st.sampled_from([event_digest(str(n)) for n in range(6)] + [b"\0" * 8, b"\xff" * 8])
events = st.builds(
    HistoryEvent,
    times,
    digests,
    st.sampled_from(["1", "2", "10", "é", "z", "Z", "_", "\u71b1\U0001f525", "x" * 200]),
    st.sampled_from(["view", "like", "rate"]),
    st.sampled_from([None, 0.0, -0.0, 1.0, -1.0, 3.5]),
)
gaps = st.sampled_from([0, 1, 1, 1, 20_000, 20_000, 59_999, 60_000, 90_000])


def _one_after_the_other(
    steps: list[tuple[int, HistoryEvent]],
) -> list[tuple[list[HistoryEvent], int]]:
    at_ms = START_MS
    changes = []
    for gap, event in steps:
        at_ms += gap
        changes.append(([event._replace(at_ms=at_ms)], NEVER))
    return changes


# Changes of a history: events and an erasure. As they mostly come: singly and in order.
in_order = st.lists(st.tuples(gaps, events), min_size=4, max_size=16).map(_one_after_the_other)
batches = st.lists(st.lists(events, max_size=6), max_size=6)
erasures = st.one_of(st.just(NEVER), times)
bounds = st.builds(HistoryBounds, st.integers(1, 5), st.integers(1, 6))
changes = st.lists(st.tuples(st.lists(events, max_size=5), erasures), max_size=7) | in_order


def wire(history: History) -> bytes:
    """Stricter than ==, which takes 0.0 for -0.0; without the revision."""
    return History(0, history.erased_at_ms, history.events).encode()
