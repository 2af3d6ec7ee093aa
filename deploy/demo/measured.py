"""From what was seen and counted to the result of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.account import Account, live_films
from deploy.demo.broken import BrokenRecord
from deploy.demo.cold_start import Regime, content_as_seen, figures, film_vectors
from deploy.demo.content_vectors import content_vectors
from deploy.demo.lane_processes import LaneFigures
from deploy.demo.llm_counts import ModelFigures, llm_counts
from deploy.demo.options import LiveSpace
from deploy.demo.plans import Kind
from deploy.demo.schedule import FeedEvent, Schedule, SummerRecord
from deploy.demo.spaces import RAW_SPACE
from deploy.demo.summary import Result
from deploy.demo.user_figures import user_figures
from deploy.demo.user_plans import Act, UserEvent
from deploy.demo.user_questions import UserQuestions
from deploy.demo.user_replay import UserReadings
from deploy.demo.watch import Sighting
from schemas.entities import Stage
from workers.adaptors.space_files import load_space
from workers.evaluation.cold_start import UserVectors
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
_ACT_LABELS: Mapping[Act, str] = {
    Act.RATING: "ratings",
    Act.LATE: "late ratings",
    Act.DUPLICATE: "repeated ratings",
    Act.ERASURE: "users erased",
    Act.GHOST: "ratings of erased users",
}


@dataclass(frozen=True, slots=True)
class UsersSeen:
    """What was asked and read of users, and how long each new one took to be rankable."""

    asked: UserQuestions
    readings: UserReadings
    rankable_ms: Sequence[float]


def measured(
    schedule: Schedule,
    account: Account,
    sightings: Sequence[Sighting],
    users: UsersSeen,
    lanes: Mapping[str, LaneFigures | None],
    reader: LiveVectors,
    *,
    space: str,
    spaces_dir: Path,
    seconds: float,
    model: ModelFigures | None = None,
) -> Result:
    """Return the result of a run that took `seconds`; reads the live vectors; raises Transient.

    `lanes` holds the figures of every lane at the end, None where one did not answer; `model` those
    of a real language model.
    """
    known = {name: found or LaneFigures(name) for name, found in lanes.items()}
    content = content_as_seen(sightings)
    hidden = [item_id for item_id in schedule.released_ms if item_id not in content]
    content |= content_vectors(
        reader, spaces_dir, raw_space=RAW_SPACE, space=space, item_ids=hidden
    )
    films = film_vectors(
        schedule,
        sightings,
        live_films(reader).vectors,
        content,
        metric=load_space(spaces_dir, space).space.metric,
    )
    read = users.readings
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
        cold_start=figures(schedule, films, UserVectors(read.of_queries, read.of_audiences)),
        users=user_figures(users.asked, read, users.rankable_ms, films[Regime.LIVE]),
        preferences=known["behaviour"].preferences,
        load_seconds=_load_seconds(sightings),
        sent=_sent(schedule),
        items_outcomes=known["items"].outcomes,
        unaccounted=account.unaccounted,
        notes=_notes(len(hidden), len(schedule.released_ms), space, model),
        model=model,
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
    for record in (*schedule.summer, *schedule.history):
        counts[_label(record)] += 1
    return dict(counts)


def _label(record: SummerRecord) -> str:
    match record:
        case BrokenRecord():
            return "broken"
        case UserEvent():
            return _ACT_LABELS[record.kind]
        case FeedEvent():
            return _LABELS[record.kind]


def _notes(hidden: int, new: int, space: str, model: ModelFigures | None) -> list[str]:
    regimes = (
        "nightly: the live vectors, but from the next 04:00 UTC on. content: new films by their"
        " text alone. live: with knowledge. The back catalogue has its knowledge in all three."
    )
    users = (
        "Users are live in live alone: the vectors a ranker could read just before each rating. In"
        " nightly and content they are means of the vectors of all films they liked before."
    )
    unseen = (
        f"The content vectors of {hidden} of {new} new films could not be read in between (their"
        " knowledge came with them, or their text changed later): made from their text parts."
    )
    weak = (
        "The language model is real and small: the gate refuses much of what it writes. A film"
        " whose answer was refused keeps the vector of its text; no refused answer reaches one."
    )
    trained = (
        "Rankers read a LEARN space, trained on the ratings until 3 June. It knows what is popular,"
        " too: of a new film it expects less than of those that are known to be popular."
    )
    said = [regimes, users]
    said += [trained] if space == LiveSpace.LEARN else []
    said += [unseen] if hidden else []
    return said + ([] if model is None else [weak])
