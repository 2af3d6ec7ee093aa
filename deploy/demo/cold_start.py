"""The cold-start figures of the demo: from when which vector of each film counts, by regime. Pure.

`live`: the vector with knowledge, from the film's event time plus its measured wall-clock
freshness (which the replay's speed-up does not multiply). `nightly`: the same vector from the next
four o'clock in the morning (UTC) on. `content`: the vector of the film's text alone, as it was
before anybody wrote about it. The back catalogue is the same in all three. A film about which
nothing usable was written has its content vector in `live` and `nightly` too, since that was there.

Users are live in `live`: the vectors that were read of them just before each rating. In the other
two a user is the mean of the film vectors that the regime had by then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

import numpy as np

from deploy.demo.plans import DAY_MS, HOUR_MS, Kind
from deploy.demo.schedule import Schedule
from deploy.demo.user_questions import rating_table
from deploy.demo.watch import Sighting, Vector
from schemas.entities import Stage
from workers.evaluation.cold_start import (
    ColdStartFigures,
    RegimeVectors,
    Rules,
    UserVectors,
    cold_start,
)
from workers.evaluation.retrieval import Metric

NIGHTLY_MS = 4 * HOUR_MS


class Regime(StrEnum):
    """How fresh a ranker's vectors are, the stalest first."""

    NIGHTLY = "nightly"
    CONTENT = "content"
    LIVE = "live"


def film_vectors(
    schedule: Schedule,
    sightings: Iterable[Sighting],
    live: Mapping[str, Vector],
    content: Mapping[str, Vector],
    *,
    metric: Metric = "cosine",
) -> dict[Regime, RegimeVectors]:
    """Return the vectors of the films in each regime.

    `live` holds the vectors (dim,) of all live films at the end, `content` those of the new films'
    text alone. A film that was never seen at a stage has no vector in that regime.
    """
    since = _first_seen_ms(sightings)
    richest = since[Stage.CONTENT] | since[Stage.INDIVIDUAL]
    return {
        Regime.NIGHTLY: _vectors(schedule, live, live, richest, next_nightly_ms, metric),
        Regime.CONTENT: _vectors(
            schedule, live, content, since[Stage.CONTENT], lambda ms: ms, metric
        ),
        Regime.LIVE: _vectors(schedule, live, live, richest, lambda ms: ms, metric),
    }


def figures(
    schedule: Schedule, films: Mapping[Regime, RegimeVectors], users: UserVectors
) -> dict[str, ColdStartFigures]:
    """Return the figures of each regime; `users` are those of the live one."""
    return cold_start(
        rating_table(schedule.ratings),
        schedule.released_ms.keys(),
        {regime.value: vectors for regime, vectors in films.items()},
        # Among all live films, those the user has rated included: the stricter count.
        Rules(leave_out_rated=False),
        {Regime.LIVE.value: users},
    )


def next_nightly_ms(at_ms: float) -> float:
    """Return the first four o'clock (UTC) at or after a moment."""
    nights = -(-(at_ms - NIGHTLY_MS) // DAY_MS)
    return nights * DAY_MS + NIGHTLY_MS


def content_as_seen(sightings: Iterable[Sighting]) -> dict[str, Vector]:
    """Return the new films' vectors of their last text alone, where a ranker could read them so.

    Left out are films whose vector had knowledge in it when their last text became readable.
    """
    last = {
        sighting.event.item_id: sighting
        for sighting in sightings
        if sighting.stage is Stage.CONTENT and sighting.event.kind is not Kind.CATALOG
    }
    return {
        item_id: sighting.vector
        for item_id, sighting in last.items()
        if sighting.vector_stage is Stage.CONTENT
    }


def _first_seen_ms(sightings: Iterable[Sighting]) -> dict[Stage, dict[str, float]]:
    """Return the event time at which each new film's announcement had become readable."""
    since: dict[Stage, dict[str, float]] = {stage: {} for stage in Stage}
    for sighting in sightings:
        if sighting.event.kind is Kind.RELEASE:
            at_ms = sighting.event.at_ms + sighting.freshness_ms
            since[sighting.stage].setdefault(sighting.event.item_id, at_ms)
    return since


def _vectors(
    schedule: Schedule,
    live: Mapping[str, Vector],
    of_new: Mapping[str, Vector],
    since_ms: Mapping[str, float],
    available_ms: Callable[[float], float],
    metric: Metric,
) -> RegimeVectors:
    new = [item for item in schedule.released_ms if item in of_new and item in since_ms]
    older = [item for item in live if item not in schedule.released_ms]
    rows: Sequence[Vector] = [*(live[item] for item in older), *(of_new[item] for item in new)]
    times = [0] * len(older) + [round(available_ms(since_ms[item])) for item in new]
    return RegimeVectors(
        keys=[*older, *new],
        values=np.array(rows, np.float32).reshape(len(rows), -1),
        available_at_ms=np.array(times, np.int64),
        metric=metric,
    )
