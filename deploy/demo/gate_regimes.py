"""Regimes of asking about users, replayed over the demo's ratings: who is asked about when. Pure.

Owns what happens to users (their lives), the stand-in that writes about them, and the calls of each
regime. The gate, the fields of a request, the prompt and the quality gate are those of the lanes.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from deploy.demo.films import KNOWLEDGE_FILE, Rating
from deploy.demo.plans import DAY_MS
from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json
from schemas.history import NEVER, History, HistoryEvent, event_digest
from schemas.knowledge import Content, Document, Factors, KnowledgeRequest, Provenance, RequestKind
from schemas.spaces import Space
from streams.lanes.preference_requests import gate_policy, taste_bounds
from streams.lanes.taste_fields import taste_fields, told_items
from streams.settings import BehaviourSettings, KnowledgeSettings
from workers.knowledge.load_domain import load_domain
from workers.knowledge.preference_gate import (
    GatePolicy,
    GateReason,
    GateState,
    decide,
    declined,
    event_day,
)
from workers.knowledge.quality import QualityGate
from workers.knowledge.recorded_writer import RecordedWriter
from workers.knowledge.user_prompt import user_prompt
from workers.knowledge.writer import Rejected
from workers.towers.recency_mean import RecencyMean
from workers.towers.significance import RatingScale, Significance
from workers.towers.user_tower import PADDING

Array: TypeAlias = npt.NDArray[np.float32]
Call: TypeAlias = tuple[int, int]
"""When a text counts (ms), and the event it was written after (its place in the user's life)."""

Calls: TypeAlias = Mapping[str, Sequence[Call]]


@dataclass(frozen=True, slots=True)
class Life:
    """All a user did, in order, and their vector (n, dim) from the history after each event."""

    events: tuple[HistoryEvent, ...]
    vectors: Array

    def history(self, index: int, max_events: int) -> History:
        """Return the history as it was after event `index`; every event is a revision."""
        return History(index + 1, NEVER, self.events[max(0, index + 1 - max_events) : index + 1])


def lives_of(
    ratings: Iterable[Rating], films: Mapping[str, Array], space: Space, pen: "Pen"
) -> dict[str, Life]:
    """Return every user's life, with the vectors that the behaviour lane would have made."""
    settings = pen.settings
    tower = RecencyMean(space, settings.half_life_days * DAY_MS, settings.negative_share)
    events: defaultdict[str, list[HistoryEvent]] = defaultdict(list)
    for one in ratings:
        id_ = event_digest(f"{one.user_id} {one.item_id} {one.at_ms}")
        events[one.user_id].append(
            HistoryEvent(one.at_ms, id_, one.item_id, "rate", float(one.rating))
        )
    lives: dict[str, Life] = {}
    for user, unordered in events.items():
        own = sorted(unordered, key=lambda event: event.order)
        names = list(dict.fromkeys(event.item for event in own))
        place = {name: row for row, name in enumerate(names)}
        n, most = len(own), settings.max_events
        # Row i is the history after event i: its newest `most` events.
        spots = np.arange(n)[:, None] - np.arange(min(n, most))[None, ::-1]
        column = np.clip(spots, 0, None)
        of_event = np.array([place[event.item] for event in own])
        weights = np.array([pen.significance.of(event) for event in own], np.float32)
        at_ms = np.array([event.at_ms for event in own], np.int64)
        vectors, _ = tower.apply(
            np.stack([films[name] for name in names]),
            np.where(spots < 0, PADDING, of_event[column]),
            np.where(spots < 0, np.float32(0), weights[column]),
            at_ms[column],
        )
        lives[user] = Life(tuple(own), vectors)
    return lives


class Pen:
    """Writes about users as the lanes do: fields, prompt, stand-in writer, quality gate."""

    def __init__(self, films: Mapping[EntityKey, Mapping[str, Json]]) -> None:
        knowledge = KnowledgeSettings()
        self.settings = BehaviourSettings()
        self.significance = Significance(
            self.settings.actions,
            frozenset(self.settings.rated_actions),
            RatingScale(
                self.settings.rating_neutral, self.settings.rating_best, self.settings.rating_worst
            ),
        )
        self._films = films
        self._domain = load_domain(
            knowledge.domain,
            factors=knowledge.factors,
            max_factor_chars=knowledge.max_factor_chars,
            max_tokens=knowledge.max_tokens,
        )
        self._gate = QualityGate(self._domain)
        self._writer = RecordedWriter.load(KNOWLEDGE_FILE, model="recorded-answers")
        self.refused: Counter[str] = Counter()

    def fields(self, history: History) -> dict[str, Json] | None:
        """Return what a request would say."""
        told_about = told_items(history, self.significance, taste_bounds(self.settings))
        return taste_fields(told_about, self._films)

    def document(self, history: History) -> Document | None:
        """Return what there is about a user whose answer is accepted."""
        fields = self.fields(history)
        if fields is None:
            return None
        user = EntityKey(EntityKind.USER, "anybody")
        request = KnowledgeRequest(
            user, RequestKind.USER, history.rev, fields, "", history.newest_ms, 0
        )
        prompt = user_prompt(self._domain, fields)
        try:
            answer = asyncio.run(self._writer.write(prompt, request, priority=0))
            rejected = self._gate.judge(answer, fields, EntityKind.USER)
            if rejected is not None:
                raise rejected
        except Rejected as error:
            self.refused[error.rejection.value] += 1
            return None
        provenance = Provenance(self._writer.model, prompt.prompt_id, "")
        content = Content(history.rev, fields, "", history.newest_ms)
        return Document(
            content=content,
            individual=Factors(history.rev, 0, answer.factors, provenance, history.newest_ms),
        )


# ---- regimes: after which events is a user written about? --------------------------------------


def after_every_event(lives: Mapping[str, Life]) -> Calls:
    """Return a call an event."""
    return {
        user: [(event.at_ms, index) for index, event in enumerate(life.events)]
        for user, life in lives.items()
    }


def every_night(lives: Mapping[str, Life]) -> Calls:
    """Return a call for every user and day with an event, after the last one of the day."""
    calls: dict[str, list[Call]] = {}
    for user, life in lives.items():
        last = {event.at_ms // DAY_MS: index for index, event in enumerate(life.events)}
        calls[user] = [((day + 1) * DAY_MS, index) for day, index in last.items()]
    return calls


def gated(lives: Mapping[str, Life], policy: GatePolicy, pen: Pen) -> Calls:
    """Return the calls that the gate asks for, everybody's events in the order they happened."""
    order = sorted(
        (event.at_ms, user, index)
        for user, life in lives.items()
        for index, event in enumerate(life.events)
    )
    states: dict[str, GateState] = {}
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    of_day: Counter[str] = Counter()
    for at_ms, user, index in order:
        life, before, day = lives[user], states.get(user), event_day(at_ms)
        history = life.history(index, pen.settings.max_events)
        vector = life.vectors[index] if life.vectors[index].any() else None
        decision = decide(before, history, vector, policy, pen.significance, of_day[day])
        if decision.ask and pen.fields(history) is None:
            decision = declined(decision, before, GateReason.NO_TITLES)
        states[user] = decision.state
        if decision.ask:
            of_day[day] += 1
            calls[user].append((at_ms, index))
    return calls


def regimes(
    lives: Mapping[str, Life], pen: Pen, progress: Callable[[str], None]
) -> dict[str, Calls]:
    """Return the calls of every regime by its name."""
    policy = gate_policy(pen.settings)
    never = float("inf")
    gates = {
        "gate (defaults)": policy,
        "gate, 5 likes' worth": replace(policy, new_events=5.0),
        "gate, 20 likes' worth": replace(policy, new_events=20.0),
        "gate, drift .05": replace(policy, drift=0.05),
        "gate, drift .30": replace(policy, drift=0.30),
        "gate, no drift": replace(policy, drift=never),
        "gate, first call only": replace(
            policy, drift=never, new_events=never, max_age_ms=10_000 * DAY_MS
        ),
    }
    made: dict[str, Calls] = {
        "one call an event": after_every_event(lives),
        "one call a user and night": every_night(lives),
    }
    for name, one in gates.items():
        made[name] = gated(lives, one, pen)
        progress(f"replayed: {name}")
    return made
