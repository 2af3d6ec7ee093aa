"""Sends what users do, and reads their vectors at the moments that the figures are about.

At the replay's speed an hour passes within a few milliseconds: two ratings of a user, or a film's
release and its first rating, follow each other faster than any ranker is asked. So a rating waits
until its film is live, and, where its user is read before it, until the user's vector shows the
ratings before it; for so long at most, and what other users do goes on. What a vector lacked
nevertheless is counted.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.user_plans import NEW_ACTS, UserEvent
from deploy.demo.user_questions import UserQuestions
from deploy.demo.watch import Reader, Vector
from schemas.errors import Transient
from workers.live.vectors import Vectors

PATIENCE_SECONDS = 2.0
"""So long a rating waits for its user's vector."""

_GIVES_UP_AFTER = 20
"""So many ratings waited in vain: the lane is down, and no vector is waited for any more."""

FILM_PATIENCE_SECONDS = 15.0
"""So long a rating waits for its film."""

_LOOK_SECONDS = 0.02

Send = Callable[[UserEvent], None]


@dataclass(slots=True)
class UserReadings:
    """What was read of users: vectors (dim,), only where there was one.

    `of_queries` by (user, item), `of_first_steps` by (user, number of events), `of_audiences` by
    film and user. `lacking` holds for each reading how many of the user's events its vector did
    not show, `held_ms` how long its rating waited for them.
    """

    of_queries: dict[tuple[str, str], Vector] = field(default_factory=dict)
    of_first_steps: dict[tuple[str, int], Vector] = field(default_factory=dict)
    of_audiences: dict[str, Mapping[str, Vector]] = field(default_factory=dict)
    lacking: list[int] = field(default_factory=list)
    held_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    """The events of a user that wait; since when the first one does, and for a vector."""

    events: deque[UserEvent]
    since: float
    asked_since: float | None = None


class UserReplay:
    """Takes events in the order of the feed; `pump` has to be called often.

    Args:
        send: puts an event on Kafka.
        reader: how rankers read.
        is_live: whether a new film can be ranked.
        asked: whose vectors are read when.
        clock: seconds, steady.
    """

    def __init__(
        self,
        send: Send,
        reader: Reader,
        is_live: Callable[[str], bool],
        asked: UserQuestions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.readings = UserReadings()
        self._send = send
        self._reader = reader
        self._is_live = is_live
        self._asked = asked
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._sent: dict[str, dict[str, int]] = {}  # user -> event id -> event time
        self._looked_at = 0.0
        self._in_vain = 0
        self._film_patience = FILM_PATIENCE_SECONDS

    @property
    def held(self) -> int:
        """How many users' events wait."""
        return len(self._held)

    def known(self, events: Sequence[UserEvent]) -> None:
        """Note what was sent before."""
        for event in events:
            self._note(event)

    def take(self, event: UserEvent) -> None:
        """Send an event, now or as soon as it may be sent."""
        if event.item_id in self._asked.audiences:
            self._read_audience(event.item_id)
        held = self._held.get(event.user_id)
        if held is not None:
            held.events.append(event)
        elif self._asks(event) or not self._has_film(event):
            self._held[event.user_id] = _Held(deque([event]), self._clock())
        else:
            self._pass(event)

    def pump(self) -> None:
        """Send what has waited long enough, or for what it waited for."""
        now = self._clock()
        if not self._held or now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        asking: list[str] = []
        for user, held in list(self._held.items()):
            if not self._has_film(held.events[0]) and now - held.since < self._film_patience:
                continue
            if self._asks(held.events[0]):
                asking.append(user)
            else:
                self._let_go(user, held)
        if asking:
            self._read_before(asking, now)

    def lose_patience(self) -> None:
        """Let nothing wait any more."""
        self._in_vain = _GIVES_UP_AFTER
        self._film_patience = 0.0

    @property
    def _patience(self) -> float:
        return PATIENCE_SECONDS if self._in_vain < _GIVES_UP_AFTER else 0.0

    def _asks(self, event: UserEvent) -> bool:
        return self._asked.asks_before(event, len(self._sent.get(event.user_id, ())))

    def _has_film(self, event: UserEvent) -> bool:
        is_new = event.kind in NEW_ACTS and event.item_id in self._asked.new_films
        return not is_new or self._is_live(event.item_id)

    def _read_before(self, users: Sequence[str], now: float) -> None:
        """Read users, and let those go whose vector is as it should be or was waited for enough."""
        vectors = self._read(users)
        for row, user in enumerate(users):
            held = self._held[user]
            held.asked_since = held.asked_since or now
            waited = now - held.asked_since
            shown_ms = -1 if vectors is None else _shown_ms(vectors, row)
            lacking = sum(at_ms > shown_ms for at_ms in self._sent.get(user, {}).values())
            if lacking and waited < self._patience:
                continue
            self._in_vain += bool(lacking)
            self.readings.lacking.append(lacking)
            self.readings.held_ms.append(waited * 1000)
            if shown_ms >= 0 and vectors is not None:
                self._keep(held.events[0], vectors.values[row].copy())
            self._let_go(user, held)

    def _let_go(self, user: str, held: _Held) -> None:
        self._pass(held.events.popleft())
        while held.events and not self._asks(held.events[0]) and self._has_film(held.events[0]):
            self._pass(held.events.popleft())
        held.since, held.asked_since = self._clock(), None
        if not held.events:
            del self._held[user]

    def _pass(self, event: UserEvent) -> None:
        self._note(event)
        self._send(event)

    def _note(self, event: UserEvent) -> None:
        if event.kind in NEW_ACTS:
            self._sent.setdefault(event.user_id, {})[event.event_id] = event.occurred_ms

    def _keep(self, event: UserEvent, vector: Vector) -> None:
        query = (event.user_id, event.item_id)
        step = (event.user_id, len(self._sent.get(event.user_id, ())))
        if query in self._asked.queries:
            self.readings.of_queries[query] = vector
        if step in self._asked.first_steps:
            self.readings.of_first_steps[step] = vector

    def _read_audience(self, item_id: str) -> None:
        """Read the users whom the film might find, once: before its first rating."""
        if item_id in self.readings.of_audiences:
            return
        users = self._asked.audiences[item_id]
        vectors = self._read(users)
        found = {} if vectors is None else _found(users, vectors)
        self.readings.of_audiences[item_id] = found

    def _read(self, users: Sequence[str]) -> Vectors | None:
        try:
            with self._reader.pin() as view:
                return view.get([f"user:{user}" for user in users])
        except Transient:
            return None  # the next look will tell


def _shown_ms(vectors: Vectors, row: int) -> int:
    """Return the event time of the newest event in a user's vector, -1 without one."""
    return int(vectors.event_times_ms[row]) if vectors.found[row] else -1


def _found(users: Sequence[str], vectors: Vectors) -> dict[str, Vector]:
    there = vectors.found.tolist()
    # One copy of what is there: the whole reply would stay in memory otherwise.
    values = vectors.values[vectors.found]
    present = [user for user, found in zip(users, there, strict=True) if found]
    return dict(zip(present, values, strict=True))
