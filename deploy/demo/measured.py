"""From what was seen and counted to the result of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.demo.account import Account, live_films
from deploy.demo.board import llm_counts
from deploy.demo.broken import BrokenRecord
from deploy.demo.cold_start import content_as_seen, figures
from deploy.demo.content_vectors import content_vectors
from deploy.demo.lane_processes import LaneFigures
from deploy.demo.plans import Kind
from deploy.demo.schedule import Schedule
from deploy.demo.spaces import RAW_SPACE, SPACE
from deploy.demo.summary import Result
from deploy.demo.watch import Sighting
from schemas.entities import Stage
from workers.live.live_vectors import LiveVectors

_LABELS: Mapping[Kind, str] = {
    Kind.CATALOG: "of the back catalogue",
    Kind.RELEASE: "releases",
    Kind.VOTES: "vote counts",
    Kind.CORRECTION: "corrected titles",
    Kind.EDIT: "edits in bursts",
    Kind.DUPLICATE: "duplicates",
    Kind.LATE: "late",
    Kind.REMOVAL: "removals",
}


def measured(
    schedule: Schedule,
    account: Account,
    sightings: Sequence[Sighting],
    lanes: Mapping[str, LaneFigures | None],
    reader: LiveVectors,
    *,
    spaces_dir: Path,
    seconds: float,
) -> Result:
    """Return the result of a run that took `seconds`; reads the live vectors; raises Transient.

    `lanes` holds the figures of every lane at the end, None where one did not answer.
    """
    known = {name: found or LaneFigures(name) for name, found in lanes.items()}
    content = content_as_seen(sightings)
    hidden = [item_id for item_id in schedule.released_ms if item_id not in content]
    content |= content_vectors(
        reader, spaces_dir, raw_space=RAW_SPACE, space=SPACE, item_ids=hidden
    )
    single = [sighting for sighting in sightings if sighting.event.kind is not Kind.CATALOG]
    return Result(
        seconds=seconds,
        events=schedule.events,
        items_live=account.items_live,
        freshness_ms=_by_stage(single),
        gone_ms=[s.freshness_ms for s in single if s.stage is Stage.NONE],
        llm=llm_counts(known),
        dead_letters=account.dead_letters,
        lag=account.lag,
        cold_start=figures(schedule, sightings, live_films(reader).vectors, content),
        load_seconds=_load_seconds(sightings),
        sent=_sent(schedule),
        items_outcomes=known["items"].outcomes,
        unaccounted=account.unaccounted,
        notes=_notes(len(hidden), len(schedule.released_ms)),
    )


def _by_stage(sightings: Sequence[Sighting]) -> dict[str, Sequence[float]]:
    return {
        stage.name.lower(): [s.freshness_ms for s in sightings if s.stage is stage]
        for stage in (Stage.CONTENT, Stage.INDIVIDUAL)
    }


def _load_seconds(sightings: Sequence[Sighting]) -> dict[str, float]:
    """Return from the first acknowledgement to the last film that became readable, by stage."""
    bulk = [sighting for sighting in sightings if sighting.event.kind is Kind.CATALOG]
    if not bulk:
        return {}
    first_ms = min(sighting.seen_at_ms - sighting.freshness_ms for sighting in bulk)
    last_ms: dict[str, float] = {}
    for sighting in bulk:
        stage = sighting.stage.name.lower()
        last_ms[stage] = max(sighting.seen_at_ms, last_ms.get(stage, 0.0))
    return {stage: (at_ms - first_ms) / 1000 for stage, at_ms in last_ms.items()}


def _sent(schedule: Schedule) -> dict[str, int]:
    """Return how many records of each kind are in the feed, as people would call them."""
    counts: Counter[str] = Counter({_LABELS[Kind.CATALOG]: len(schedule.back_catalogue)})
    for record in schedule.summer:
        counts["broken" if isinstance(record, BrokenRecord) else _LABELS[record.kind]] += 1
    return dict(counts)


def _notes(hidden: int, new: int) -> list[str]:
    regimes = (
        "nightly: the live vectors, but from the next 04:00 UTC on. content: new films by their"
        " text alone. live: with knowledge. The back catalogue has its knowledge in all three."
    )
    unseen = (
        f"The content vectors of {hidden} of {new} new films could not be read in between (their"
        " knowledge came with them, or their text changed later): made from their text parts."
    )
    return [regimes, unseen] if hidden else [regimes]
