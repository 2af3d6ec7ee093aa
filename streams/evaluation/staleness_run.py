"""`freshet evaluate staleness`: what it costs to read vectors that are an hour or a day old."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from pathlib import Path

import numpy as np

from schemas.errors import ConfigurationError
from schemas.history import HistoryEvent
from streams.evaluation.cold_start_run import check_parts, known_items, open_space
from streams.evaluation.cold_start_task import LIKED_FROM
from streams.evaluation.event_histories import LIKE, RATE, check_actions
from streams.evaluation.offline_vectors import (
    RawItems,
    bytes_per_item,
    item_vectors,
    tower_input,
)
from streams.represented_catalogue import Progress, represent_catalogue, silent
from streams.settings import Settings
from streams.user_parts import significance_of, tower_options
from workers.evaluation.interaction_files import Interactions, read_interactions
from workers.evaluation.staleness import Events, Hits, Regime, RegimeFigures, Replay, staleness
from workers.evaluation.staleness_chart import Panel, Point, draw_staleness
from workers.towers.load_towers import tower_of
from workers.towers.significance import Significance

DELAYS: Mapping[str, int | None] = {
    "live": 1_000,
    "1 min": 60_000,
    "1 h": 3_600_000,
    "1 day": 86_400_000,
    "never": None,
}
"""In ms, the freshest first. A second stands for live: ratings are dated to the second."""

MIN_LIKES = 5


@dataclass(frozen=True, slots=True)
class StalenessOptions:
    """What to replay: interactions with times; queries begin at `start_ms`."""

    catalog: Path
    knowledge: Path | None
    train: Path
    space: str
    start_ms: int
    liked_from: float = LIKED_FROM


@dataclass(frozen=True, slots=True)
class StalenessResult:
    """The figures by (age of items, age of users), both named as in DELAYS."""

    space: str
    start_ms: int
    figures: Mapping[tuple[str, str], RegimeFigures]
    bytes_per_item: int

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {
            "space": self.space,
            "start_ms": self.start_ms,
            "bytes_per_item": self.bytes_per_item,
            "regimes": [
                {
                    "items": items,
                    "users": users,
                    "new": figures.new.to_json(),
                    "all": figures.all.to_json(),
                }
                for (items, users), figures in self.figures.items()
            ],
        }


async def evaluate_staleness(
    settings: Settings, options: StalenessOptions, *, progress: Progress = silent
) -> StalenessResult:
    """Return the figures: items and users stale together, and each alone with the other live.

    Raises ConfigurationError on files that do not fit.
    """
    settings, loaded = open_space(settings, options.space)
    catalogue = await represent_catalogue(
        settings, catalog=options.catalog, knowledge=options.knowledge, progress=progress
    )
    check_parts(loaded, catalogue)
    known = known_items(catalogue, with_knowledge=options.knowledge is not None)
    interactions = await asyncio.to_thread(read_interactions, options.train)
    interactions = interactions.take(np.isin(interactions.item, np.array(sorted(known), np.str_)))
    if not interactions.timed:
        raise ConfigurationError("--train", "a replay needs interactions with times")
    check_actions(interactions, settings.behaviour)
    rows = [place for place, key in enumerate(catalogue.keys) if key.id in known]
    ids = [catalogue.keys[place].id for place in rows]
    items = RawItems(ids, catalogue.parts[rows], catalogue.mask[rows])
    tower = tower_of(loaded.space, tower_options(settings))
    replay = Replay.of(
        _events(interactions, ids, significance_of(settings.behaviour), options.liked_from),
        items=len(ids),
        start_ms=options.start_ms,
        min_likes=MIN_LIKES,
    )
    if not len(replay.queries):
        raise ConfigurationError("--from", "nothing is liked after it by a user with enough likes")
    regimes = _regimes()

    def run() -> dict[Regime, RegimeFigures]:
        values = item_vectors(loaded.adaptor, items)
        read = tower_input(loaded.adaptor, tower, items, values)
        return staleness(
            replay,
            values,
            lambda rows, weights, at_ms: tower.apply(read, rows, weights, at_ms),
            list(dict.fromkeys(regimes.values())),
            metric=loaded.space.metric,
            max_events=settings.behaviour.max_events,
            on_progress=lambda done: progress("replaying", done, len(regimes)),
        )

    figures = await asyncio.to_thread(run)
    return StalenessResult(
        loaded.space.name,
        options.start_ms,
        {name: figures[regime] for name, regime in regimes.items()},
        bytes_per_item(loaded.space),
    )


def _regimes() -> dict[tuple[str, str], Regime]:
    fresh = next(iter(DELAYS))
    names = [
        *((name, name) for name in DELAYS),
        *((name, fresh) for name in DELAYS),
        *((fresh, name) for name in DELAYS),
    ]
    return {(item, user): Regime(DELAYS[item], DELAYS[user]) for item, user in names}


def _events(
    interactions: Interactions, ids: list[str], significance: Significance, liked_from: float
) -> Events:
    row = {id_: place for place, id_ in enumerate(ids)}
    _, user = np.unique(interactions.user, return_inverse=True)
    value = interactions.value
    return Events.in_order(
        user.astype(np.int64),
        np.array([row[item] for item in interactions.item.tolist()], np.int64),
        np.array([_weight(significance, one) for one in value.tolist()], np.float32),
        np.isnan(value) | (value >= liked_from),
        interactions.at_ms,
    )


def _weight(significance: Significance, value: float) -> float:
    if isnan(value):
        return significance.of(HistoryEvent(0, b"", "", LIKE))
    return significance.of(HistoryEvent(0, b"", "", RATE, value))


def draw(result: StalenessResult, path: Path) -> None:
    """Write the chart of a result; raises ConfigurationError, see `draw_staleness`."""
    fresh = next(iter(DELAYS))
    curves = {
        "items and users stale": [(name, name) for name in DELAYS],
        "only items stale": [(name, fresh) for name in DELAYS],
        "only users stale": [(fresh, name) for name in DELAYS],
    }
    since = datetime.fromtimestamp(result.start_ms / 1000, UTC).date().isoformat()
    whole = result.figures[fresh, fresh]
    draw_staleness(
        path,
        title="Ranking quality against the age of vectors",
        y_label="liked items among the first 100 shown (HR@100)",
        ages=list(DELAYS),
        panels=[
            Panel(
                f"items new since {since} ({whole.new.n:,} queries)",
                {
                    name: [_point(result.figures[at].new) for at in ats]
                    for name, ats in curves.items()
                },
            ),
            Panel(
                f"all items ({whole.all.n:,} queries)",
                {
                    name: [_point(result.figures[at].all) for at in ats]
                    for name, ats in curves.items()
                },
            ),
        ],
        note=f"Space {result.space}; replay in order of time; bars: 95 % intervals over users; "
        f"never: as of {since}",
    )


def _point(hits: Hits) -> Point:
    return Point(hits.hr100 or 0.0, hits.hr100_interval)
