"""What the demo knows of itself while it runs: written by its threads, shown by its display."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.lane_processes import LaneFigures
from deploy.demo.llm_counts import llm_counts
from deploy.demo.plans import Kind
from deploy.demo.schedule import SummerRecord
from deploy.demo.user_plans import UserEvent
from deploy.demo.watch import Sighting
from schemas.entities import Stage

_NEWS = 6
_RECENT = 200
_TOLD = {
    Kind.RELEASE: "released",
    Kind.CORRECTION: "title corrected",
    Kind.EDIT: "burst of edits settled",
    Kind.REMOVAL: "removed",
}
_EFFECTS = {
    Stage.NONE: "gone for rankers",
    Stage.CONTENT: "rankable",
    Stage.INDIVIDUAL: "rankable with knowledge",
}


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane in the display; `rate` is in records a second."""

    lane: str
    state: str
    settled: int
    rate: float
    lag: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The board at one moment. `freshness_ms` holds the latest values of each stage.

    `rankable_ms` holds those of new users, of whom there were `new_users`. `season_ms` is 0 before
    anything was sent.
    """

    phase: str
    detail: str
    elapsed_seconds: float
    sent: int
    to_send: int
    season_ms: int
    live: Mapping[str, int]
    freshness_ms: Mapping[str, Sequence[float]]
    lanes: Sequence[LaneRow]
    calls: int
    saved_fingerprint: int
    saved_coalesced: int
    refused: int
    user_events: int
    new_users: int
    rankable_ms: Sequence[float]
    news: Sequence[str]

    @property
    def share_sent(self) -> float:
        """Of the records to send, 0 to 1."""
        return self.sent / self.to_send if self.to_send else 0.0


@dataclass(slots=True)
class _Lane:
    figures: LaneFigures
    state: str = "starting"
    rate: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class _State:
    phase: str = "Starting"
    detail: str = ""
    sent: int = 0
    to_send: int = 0
    season_ms: int = 0
    live: Mapping[str, int] = field(default_factory=dict)
    user_events: int = 0
    rankable_ms: Sequence[float] = ()
    lanes: dict[str, _Lane] = field(default_factory=dict)


class Board:
    """Thread-safe; every method is quick."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._state = _State()
        self._news: deque[str] = deque(maxlen=_NEWS)
        self._recent: dict[Stage, deque[float]] = {
            stage: deque(maxlen=_RECENT) for stage in (Stage.CONTENT, Stage.INDIVIDUAL)
        }

    @property
    def elapsed_seconds(self) -> float:
        """Since the start of the demo."""
        return time.monotonic() - self._started

    def enter(self, phase: str, detail: str = "", *, to_send: int = 0) -> None:
        """Say what is being done now."""
        with self._lock:
            self._state.phase, self._state.detail = phase, detail
            self._state.sent, self._state.to_send, self._state.season_ms = 0, to_send, 0

    def say(self, detail: str) -> None:
        """Say more about what is being done."""
        with self._lock:
            self._state.detail = detail

    def sent(self, record: SummerRecord) -> None:
        """Count a record that was handed to the producer."""
        with self._lock:
            self._state.sent += 1
            self._state.user_events += isinstance(record, UserEvent)
            # What was held back does not turn back the calendar.
            self._state.season_ms = max(record.at_ms, self._state.season_ms)

    def saw(self, sighting: Sighting) -> None:
        """Note that an event became visible; bulk loading is not news."""
        event = sighting.event
        if event.kind is Kind.CATALOG:
            return
        with self._lock:
            if sighting.stage in self._recent:
                self._recent[sighting.stage].append(sighting.freshness_ms)
            title = self._titles.get(event.item_id, event.item_id)
            what = _TOLD.get(event.kind, event.kind.value)
            effect = _EFFECTS[sighting.stage]
            self._news.append(f"{title}: {what}, {effect} after {sighting.freshness_ms:,.0f} ms")

    def count(
        self,
        live: Mapping[str, int],
        lanes: Mapping[str, tuple[str, LaneFigures | None]],
        rankable_ms: Sequence[float] = (),
    ) -> None:
        """Take over what was counted: live films by stage; state and figures of each lane.

        And how long each new user took so far.
        """
        now = time.monotonic()
        with self._lock:
            self._state.live, self._state.rankable_ms = live, rankable_ms
            for name, (state, figures) in lanes.items():
                lane = self._state.lanes.setdefault(name, _Lane(LaneFigures(name)))
                lane.state = state
                if figures is not None:
                    passed = max(0.001, now - lane.at)
                    lane.rate = (figures.settled - lane.figures.settled) / passed if lane.at else 0
                    lane.figures, lane.at = figures, now

    def snapshot(self) -> Snapshot:
        """Return all of it as it is now."""
        with self._lock:
            state = self._state
            figures = {name: lane.figures for name, lane in state.lanes.items()}
            llm = llm_counts(figures)
            return Snapshot(
                phase=state.phase,
                detail=state.detail,
                elapsed_seconds=self.elapsed_seconds,
                sent=state.sent,
                to_send=state.to_send,
                season_ms=state.season_ms,
                live=dict(state.live),
                freshness_ms={
                    stage.name.lower(): tuple(values) for stage, values in self._recent.items()
                },
                lanes=[
                    LaneRow(
                        name,
                        lane.state,
                        lane.figures.settled,
                        max(0.0, lane.rate),
                        lane.figures.lag,
                    )
                    for name, lane in state.lanes.items()
                ],
                calls=llm.calls,
                saved_fingerprint=llm.saved_fingerprint,
                saved_coalesced=llm.saved_coalesced,
                refused=sum(sum(lane.refused.values()) for lane in figures.values()),
                user_events=state.user_events,
                new_users=len(state.rankable_ms),
                rankable_ms=state.rankable_ms[-_RECENT:],
                news=tuple(self._news),
            )
