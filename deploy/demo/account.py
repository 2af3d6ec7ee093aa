"""The reckoning at the end: every record that was sent must have had its effect.

Asks the sources of truth: the watchers and `LiveVectors` for vectors, the items lane's own register
for versions that said nothing new, the dead-letter topics for the rest, Kafka for the lag.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.demo.broken import BrokenRecord
from deploy.demo.schedule import FeedEvent, Schedule
from deploy.demo.user_account import users_unaccounted
from deploy.demo.watch import Vector, Watcher
from schemas.entities import Stage
from streams.dead_letters import list_letters
from streams.lag import read_lag
from streams.settings import KafkaSettings
from streams.topology import LANES
from workers.live.live_vectors import LiveVectors

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the feed; `unaccounted` is empty when nothing is missing."""

    items_live: Mapping[str, int]
    dead_letters: Mapping[str, int]
    lag: Mapping[str, int]
    unaccounted: Sequence[str]


@dataclass(frozen=True, slots=True)
class LiveFilms:
    """The stage and the vector (dim,) of every live film, by id."""

    stages: Mapping[str, Stage]
    vectors: Mapping[str, Vector]


def reckon(
    schedule: Schedule, watcher: Watcher, reader: LiveVectors, kafka: KafkaSettings
) -> Account:
    """Return what became of every record of the feed until now; raises Transient."""
    letters = _dead_letters(kafka)
    lag = {lane.lane: lane.records for lane in read_lag(kafka).by_lane()}
    expected_letters = Counter(
        record.reason.value for record in schedule.summer if isinstance(record, BrokenRecord)
    )
    live = live_films(reader).stages
    missing = [
        *watcher.unseen(),
        *_unconfirmed(schedule, reader),
        *(f"{item_id} was removed and is live" for item_id in sorted(schedule.removed & set(live))),
        *users_unaccounted(schedule, reader),
        *_different(letters, expected_letters),
        *(f"lane {lane} is {records} records behind" for lane, records in lag.items() if records),
    ]
    by_stage = Counter(live.values())
    return Account(
        items_live={
            stage.name.lower(): by_stage[stage] for stage in Stage if stage is not Stage.NONE
        },
        dead_letters=dict(sorted(letters.items())),
        lag=lag,
        unaccounted=_shortened(missing),
    )


def _dead_letters(kafka: KafkaSettings) -> Counter[str]:
    return Counter(
        "foreign" if stored.letter is None else stored.letter.reason.value
        for lane in LANES
        for stored in list_letters(kafka, lane, newest=None)
    )


def live_films(reader: LiveVectors) -> LiveFilms:
    """Return every item that has a vector; raises Transient."""
    stages: dict[str, Stage] = {}
    vectors: dict[str, Vector] = {}
    with reader.pin() as view:
        for keys, found in view.iterate():
            for row, key in enumerate(keys):
                item_id = key.removeprefix("item:")
                stages[item_id] = Stage(int(found.stages[row]))
                vectors[item_id] = found.values[row]
    return LiveFilms(stages, vectors)


def _unconfirmed(schedule: Schedule, reader: LiveVectors) -> list[str]:
    newest: dict[str, int] = {}
    for record in (*schedule.back_catalogue, *schedule.summer):
        if isinstance(record, FeedEvent):
            newest[record.item_id] = max(record.version, newest.get(record.item_id, 0))
    confirmed = reader.confirmed_versions([f"item:{item_id}" for item_id in newest])
    return [
        f"{item_id} version {version}: the items lane knows version {known}"
        for (item_id, version), known in zip(newest.items(), confirmed.tolist(), strict=True)
        if known < version
    ]


def _different(found: Counter[str], expected: Counter[str]) -> list[str]:
    return [
        f"{found[reason]} dead letters for {reason}, {expected[reason]} broken records were sent"
        for reason in sorted({*found, *expected})
        if found[reason] != expected[reason]
    ]


def _shortened(lines: Sequence[str]) -> tuple[str, ...]:
    if len(lines) <= _SHOWN:
        return tuple(lines)
    return (*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more")
