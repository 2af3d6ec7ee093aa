"""The observer: everything is counted, and what a lane wants traced is traced."""

from collections.abc import Sequence

from schemas.entities import EntityKey
from schemas.trace import TraceEntry
from streams.engine.outcomes import Outcome
from streams.engine.ports import Ended
from streams.metrics import LaneMetrics
from streams.observer import LaneObserver
from tests.fakes.clock import FakeClock
from tests.history_builders import user


class Traces:
    """A TracePort in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[EntityKey, TraceEntry]] = []

    async def append(self, entries: Sequence[tuple[EntityKey, TraceEntry]]) -> None:
        self.entries += entries


def ended(id_: str, outcome: Outcome) -> Ended:
    return Ended(user(id_), None, outcome, "", "", 0.1)


async def test_only_the_outcomes_that_a_lane_names_are_traced_but_all_are_counted():
    metrics, traces = LaneMetrics("behaviour"), Traces()
    observer = LaneObserver(
        "behaviour",
        metrics,
        traces,
        FakeClock(),
        on_flood=lambda _detail: None,
        traced=frozenset({Outcome.DEAD_LETTERED}),
    )

    observer.ended([ended("1", Outcome.WRITTEN), ended("2", Outcome.DEAD_LETTERED)])
    await observer.flush()

    assert [(key, entry.outcome) for key, entry in traces.entries] == [(user("2"), "dead_lettered")]
    _, page = metrics.exposition()
    assert b'freshet_records_total{lane="behaviour",outcome="written",reason=""} 1.0' in page


def test_the_behaviour_lanes_counters_are_on_the_page():
    class Counts:
        limited_events, refused_events = 3, 2
        written, deleted, awaited = 7, 1, 5

    metrics = LaneMetrics("behaviour")
    metrics.follow_behaviour("behaviour", Counts(), Counts(), {"drift": 4})

    _, page = metrics.exposition()

    for line in (
        b'freshet_behaviour_limited_events_total{lane="behaviour"} 3.0',
        b'freshet_behaviour_refused_events_total{lane="behaviour"} 2.0',
        b'freshet_behaviour_awaited_items_total{lane="behaviour"} 5.0',
        b'freshet_user_vectors_total{lane="behaviour",what="deleted"} 1.0',
        b'freshet_preference_decisions_total{lane="behaviour",why="drift"} 4.0',
    ):
        assert line in page
