"""The same question put to running lanes: events in, vectors read by `LiveVectors`.

Sends the catalogue, waits until every lane has settled everything, sends the interactions, waits
again, and reads what a ranker would read. Users' histories stay in the deployment, so one that
serves somebody else is refused.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from schemas.entities import EntityKind, Stage
from schemas.errors import ConfigurationError, Transient
from schemas.events import CATALOG_EVENT, UPSERTED, ItemRemoved, ItemUpserted, parse_object
from streams.evaluation.cold_start_scores import NamedVectors
from streams.evaluation.event_histories import behaviour_events
from streams.kafka_clients import KafkaConnection
from streams.lag import LagReader, lag_reader
from streams.producers import BehaviourProducer, CatalogProducer, FlushReport
from streams.represented_catalogue import Progress
from streams.settings import Settings
from workers.evaluation.interaction_files import Interactions
from workers.live.live_vectors import LiveVectors

_SOURCE = "/freshet/evaluate"
_FLUSH_SECONDS = 120.0
_POLL_SECONDS = 1.0
_QUIET_LOOKS = 3
"""So many looks in a row have to find nothing open: work passes from lane to lane in between."""
_BACKLOG = "knowledge-backlog"
"""Not waited for: it has no end, as what it puts off for good reason is part of it."""
_VERSION = 1
_BATCH_EVENTS = 100
_FOREIGN_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What was read, the stages of the items' vectors, and how long it took to make them.

    `items_seconds` and `users_seconds` run from the first event sent to the last lane at rest.
    """

    items: NamedVectors
    users: NamedVectors
    stages: dict[str, int]
    items_seconds: float
    users_seconds: float


def run_live(
    settings: Settings,
    *,
    space: str,
    catalog: Path,
    item_ids: Sequence[str],
    interactions: Interactions,
    wait_seconds: float,
    force: bool,
    progress: Progress,
) -> LiveRun:
    """Send items and interactions to the running lanes; return the vectors they made.

    Only the items of `item_ids` are sent. Raises ConfigurationError when `space` is not active or
    the deployment holds somebody else's items or users (unless `force`), Transient when lanes do
    not come to rest within `wait_seconds` each time or something is not delivered.
    """
    user_ids = sorted(set(interactions.user.tolist()))
    wanted = frozenset(item_ids)
    with _reader(settings) as live, lag_reader(settings.kafka) as lag:
        _check_active(live, space)
        if not force:
            _check_own(live, EntityKind.ITEM, wanted)
            _check_own(live, EntityKind.USER, frozenset(user_ids))
        lanes = [lane for lane in lag.lanes() if lane != _BACKLOG]
        started = time.monotonic()
        _send_items(settings, _catalogue_events(catalog, wanted))
        _wait(lag, lanes, wait_seconds, progress)
        items_seconds = time.monotonic() - started
        started = time.monotonic()
        _send_interactions(settings, interactions)
        _wait(lag, lanes, wait_seconds, progress)
        users_seconds = time.monotonic() - started
        items, stages = _read(live, EntityKind.ITEM, sorted(wanted))
        users, _ = _read(live, EntityKind.USER, user_ids)
    return LiveRun(items, users, stages, items_seconds, users_seconds)


@contextmanager
def _reader(settings: Settings) -> Iterator[LiveVectors]:
    redis = settings.redis
    with LiveVectors(
        redis.url.get_secret_value(),
        key_prefix=redis.key_prefix,
        timeout_seconds=redis.timeout_seconds,
        ssl_cafile=redis.ssl_cafile,
    ) as live:
        yield live


def _check_active(live: LiveVectors, space: str) -> None:
    with live.pin() as view:
        for kind in (EntityKind.ITEM, EntityKind.USER):
            active = view.get([f"{kind}:-"]).space
            if active != space:
                raise ConfigurationError(
                    "--space",
                    f"{active} is active for {kind}s, not {space}; run: "
                    f"freshet spaces activate {space}",
                )


def _check_own(live: LiveVectors, kind: EntityKind, ours: frozenset[str]) -> None:
    foreign: list[str] = []
    with live.pin() as view:
        for keys, _ in view.iterate(kind.value):
            foreign += [key for key in keys if key.partition(":")[2] not in ours]
            if len(foreign) >= _FOREIGN_SHOWN:
                break
    if foreign:
        raise ConfigurationError(
            "--through-pipeline",
            f"the deployment holds other {kind}s ({', '.join(foreign[:_FOREIGN_SHOWN])} ...): use "
            "one of its own (FRESHET_REDIS__KEY_PREFIX, FRESHET_KAFKA__TOPIC_PREFIX) or --force",
        )


def _catalogue_events(path: Path, wanted: frozenset[str]) -> Iterator[ItemUpserted | ItemRemoved]:
    """Yield the events of the catalogue's lines, whole events or plain items, of wanted items."""
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            body = parse_object(line)
            if "type" not in body or not isinstance(body.get("item"), dict):
                fields = {name: value for name, value in body.items() if name != "item_id"}
                body = {"type": UPSERTED, "item_id": body.get("item_id"), "item": fields}
            body["item_id"] = str(body.get("item_id"))
            body.setdefault("version", _VERSION)
            if body["item_id"] in wanted:
                yield CATALOG_EVENT.validate_json(orjson.dumps(body))


def _send_items(settings: Settings, events: Iterable[ItemUpserted | ItemRemoved]) -> None:
    producer = CatalogProducer(
        KafkaConnection.of(settings.kafka),
        topic_prefix=settings.kafka.topic_prefix,
        source=_SOURCE,
    )
    try:
        for event in events:
            producer.send(event)
        _check_sent(producer.flush(_FLUSH_SECONDS))
    finally:
        producer.close()


def _send_interactions(settings: Settings, interactions: Interactions) -> None:
    producer = BehaviourProducer(
        KafkaConnection.of(settings.kafka),
        topic_prefix=settings.kafka.topic_prefix,
        source=_SOURCE,
        batch_events=_BATCH_EVENTS,
        limits=settings.behaviour.limits,
    )
    try:
        for event in behaviour_events(interactions):
            producer.send(event)
        _check_sent(producer.flush(_FLUSH_SECONDS))
    finally:
        producer.close()


def _check_sent(report: "FlushReport[object]") -> None:
    if not report.complete:
        raise Transient("kafka", f"{len(report.failed)} events were not delivered")


def _wait(lag: LagReader, lanes: Sequence[str], seconds: float, progress: Progress) -> None:
    """Return once no lane has had anything to do for some looks; raises Transient."""
    deadline = time.monotonic() + seconds
    quiet, most = 0, 0
    while quiet < _QUIET_LOOKS:
        open_ = {one.lane: one.records for one in lag.read(lanes).by_lane() if one.records}
        quiet = 0 if open_ else quiet + 1
        left = sum(open_.values())
        most = max(most, left)
        progress("waiting for the lanes", most - left, most)
        if time.monotonic() > deadline:
            behind = ", ".join(f"{lane}: {records}" for lane, records in open_.items())
            raise Transient("lanes", f"not at rest after {seconds:g} s ({behind or 'busy'})")
        time.sleep(_POLL_SECONDS)


def _read(
    live: LiveVectors, kind: EntityKind, ids: Sequence[str]
) -> tuple[NamedVectors, dict[str, int]]:
    with live.pin() as view:
        found = view.get([f"{kind}:{id_}" for id_ in ids])
    there = np.flatnonzero(found.found).tolist()
    stages = {
        stage.name.lower(): int(count)
        for stage in Stage
        if (count := (found.stages[there] == stage).sum())
    }
    return NamedVectors([ids[row] for row in there], found.values[there]), stages
