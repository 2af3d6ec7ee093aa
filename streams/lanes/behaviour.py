"""The behaviour lane: interactions become histories, and histories user vectors.

Owns the order of the effects: histories first, then the items they name, then vectors, then what is
asked or taken back elsewhere; settled last. Every step may be repeated: appending is idempotent,
and a vector never replaces one of a later revision. Its second input announces item vectors, for
the users who interacted with an item before it had one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from schemas.behaviour import BehaviourLimits, decode_behaviour
from schemas.entities import EntityKey, EntityKind, Stage
from schemas.errors import Permanent
from schemas.history import NEVER, History, HistoryBounds
from schemas.live_update import LiveUpdate
from schemas.reasons import Reason
from streams.emitter import Emitter
from streams.engine.lane import Absorbed, Record
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import Clock, DeadLetterSink
from streams.lanes.behaviour_news import (
    BehaviourNews,
    UserNews,
    letter_of,
    news_of_users,
    users_together,
)
from streams.lanes.erasure import erasure_messages
from streams.lanes.limited_events import LimitedEvents
from streams.lanes.preference_requests import TasteChange
from streams.lanes.shared_users import put_vectors
from streams.lanes.user_vectors import AwaitedPort, UserVectors
from workers.live.history_records import AppliedHistory, HistoryChange

REFRESHED_AT_ONCE = 256
"""Users who waited for an item, with whole histories: some MB."""

_WRITTEN = Settled(Outcome.WRITTEN, called=("redis",))
_UNCHANGED = Settled(Outcome.UNCHANGED, called=("redis",))
_ERASED = Settled(Outcome.WRITTEN, reason="erased", called=("redis", "kafka"))
_TOO_LATE = Settled(Outcome.STALE, reason="erased", called=("redis",))


class HistoriesPort(Protocol):
    """Users' histories in Redis."""

    async def apply(
        self, changes: Sequence[HistoryChange], *, partition_of: Mapping[EntityKey, int]
    ) -> list[AppliedHistory]:
        """Join each change into its user's history; users are distinct; raises Transient."""

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        """Return each user's history, in order, None where there is none; raises Transient."""


class PreferencePort(Protocol):
    """Who decides whether a language model should write about a user (again)."""

    async def consider(self, changes: Sequence[TasteChange]) -> None:
        """Ask for what is worth it; raises Transient."""

    async def forget(self, users: Sequence[EntityKey]) -> None:
        """Forget what was decided about users; raises Transient."""


class NoGate:
    """A PreferencePort that never asks."""

    async def consider(self, changes: Sequence[TasteChange]) -> None:
        """Do nothing."""

    async def forget(self, users: Sequence[EntityKey]) -> None:
        """Do nothing."""


@dataclass(slots=True)
class BehaviourCounts:
    """What was counted since the start."""

    limited_events: int = 0
    refused_events: int = 0


class BehaviourLane:
    """One handler on `user.behaviour` and `live.updates`; see streams.engine.lane.Lane.

    Args:
        histories: where histories are kept.
        awaited: who waits for which item.
        user_vectors: makes and writes the vectors.
        gate: decides about knowledge of users.
        emitter: for erasures.
        dead_letters: for events of batches that cannot be used.
        clock: time.
        bounds: how much of a user is kept.
        limits: what a record may be.
        updates_topic: the full name of `live.updates`.
        group: the lane's consumer group, noted in dead letters.
    """

    name = "behaviour"

    def __init__(  # noqa: PLR0913  # one for each thing it talks to
        self,
        *,
        histories: HistoriesPort,
        awaited: AwaitedPort,
        user_vectors: UserVectors,
        gate: PreferencePort,
        emitter: Emitter,
        dead_letters: DeadLetterSink,
        clock: Clock,
        bounds: HistoryBounds,
        limits: BehaviourLimits,
        updates_topic: str,
        group: str,
    ) -> None:
        self._histories = histories
        self._awaited = awaited
        self._user_vectors = user_vectors
        self._gate = gate
        self._emitter = emitter
        self._dead_letters = dead_letters
        self._clock = clock
        self._bounds = bounds
        self._limits = limits
        self._updates_topic = updates_topic
        self._group = group
        self.counts = BehaviourCounts()
        self._limited = LimitedEvents(bounds.max_per_minute)

    def decode(self, record: Record, now_ms: int) -> BehaviourNews:
        """Return what a record of either topic says; raises Permanent."""
        if record.topic == self._updates_topic:
            return _arrival(record)
        decoded = decode_behaviour(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=record.timestamp_ms,
            now_ms=now_ms,
            limits=self._limits,
        )
        letters = tuple(
            letter_of(
                refused, record, stage=f"{self.name}.decode", group=self._group, now_ms=now_ms
            )
            for refused in decoded.refused
        )
        # Not the record's key: it is that of a batch's first event, which may be among the refused.
        key = decoded.events[0].user
        return BehaviourNews(key, news_of_users(decoded, record.partition), refused=letters)

    def key(self, value: BehaviourNews) -> EntityKey:
        """Return the user (of a batch's first usable event), or the entity of an update."""
        return value.key

    def version(self, value: BehaviourNews) -> int | None:  # noqa: ARG002  # events have none
        """Return None."""
        return None

    def tokens(self, value: BehaviourNews) -> int:
        """Return the number of events."""
        return max(1, value.event_count)

    def due_at_ms(self, value: BehaviourNews) -> int:  # noqa: ARG002  # always at once
        """Return 0."""
        return 0

    def absorb(self, waiting: BehaviourNews, incoming: BehaviourNews) -> Absorbed[BehaviourNews]:
        """Add both up: no event is lost, and a flood of one user's becomes one unit."""
        together = waiting.plus(incoming, self._bounds)
        return Absorbed(together, incoming_survives=False, loser=None)

    async def handle(self, batch: Sequence[BehaviourNews]) -> Sequence[Result]:
        """Append, make vectors, carry erasures on; raises Transient."""
        self._user_vectors.check()
        news = users_together(chain.from_iterable(one.users.items() for one in batch), self._bounds)
        erased = {user: one for user, one in news.items() if one.erased_at_ms != NEVER}
        await self._leave_awaited(list(erased))
        applied = await self._apply(news)
        waiting = await self._waiting({item for one in batch for item in one.arrived})
        made = await self._user_vectors.put({user: one.history for user, one in applied.items()})
        await self._refresh(waiting, applied.keys(), made.missing)
        if erased:
            await self._carry_on(
                [(user, applied[user].history, one.partition) for user, one in erased.items()]
            )
        tastes = [
            TasteChange(user, applied[user].history, vector)
            for user, vector in made.tastes.items()
            if user not in erased and applied[user].history.events
        ]
        if tastes:
            await self._gate.consider(tastes)
        letters = [letter for one in batch for letter in one.refused]
        if letters:
            self.counts.refused_events += len(letters)
            await self._dead_letters.send(letters)
        return [_ended(one, applied, waiting) for one in batch]

    async def _leave_awaited(self, erased: Sequence[EntityKey]) -> None:
        """Take users out of what they wait for: their history is the only way to find it."""
        if not erased:
            return
        for user, history in zip(erased, await self._histories.load(erased), strict=True):
            if history is not None and history.events:
                items = dict.fromkeys(event.item for event in history.events)
                await self._awaited.forget(user, [EntityKey(EntityKind.ITEM, id_) for id_ in items])

    async def _apply(self, news: Mapping[EntityKey, UserNews]) -> dict[EntityKey, AppliedHistory]:
        if not news:
            return {}
        applied = await self._histories.apply(
            [HistoryChange(user, one.events, one.erased_at_ms) for user, one in news.items()],
            partition_of={user: one.partition for user, one in news.items()},
        )
        limited = sum(one.limited for one in news.values()) + sum(one.limited for one in applied)
        if limited:
            self.counts.limited_events += limited
            self._limited.note(limited, now=self._clock.monotonic())
        return dict(zip(news, applied, strict=True))

    async def _waiting(
        self, arrived: Iterable[EntityKey]
    ) -> Mapping[EntityKey, Sequence[EntityKey]]:
        """Return who waits for the items that have vectors now."""
        items = sorted(arrived)
        return await self._awaited.users(items) if items else {}

    async def _refresh(
        self,
        waiting: Mapping[EntityKey, Sequence[EntityKey]],
        done: Collection[EntityKey],
        missing: Collection[EntityKey],
    ) -> None:
        """Make the vectors of who waits, but of users `done` just now, and let them wait no more.

        A few at a time: a catalogue that comes after its users has most of them waiting at once.
        `missing` items are not there after all.
        """
        gone = set(missing)
        users = sorted({user for users in waiting.values() for user in users} - set(done))
        for start in range(0, len(users), REFRESHED_AT_ONCE):
            some = users[start : start + REFRESHED_AT_ONCE]
            loaded = await self._histories.load(some)
            histories = {
                user: history
                for user, history in zip(some, loaded, strict=True)
                if history is not None
            }
            made = await put_vectors(self._user_vectors, self._histories, histories)
            gone |= made.missing
        for item, waited in waiting.items():
            if item not in gone:
                await self._awaited.served(item, waited)

    async def _carry_on(self, erased: Sequence[tuple[EntityKey, History, int]]) -> None:
        """Take back what is known of users elsewhere; again, when an erasure is repeated."""
        await self._gate.forget([user for user, _, _ in erased])
        now_ms = self._clock.now_ms()
        await self._emitter.emit(
            [
                message
                for user, history, partition in erased
                for message in erasure_messages(user, history, partition=partition, now_ms=now_ms)
            ]
        )


def _arrival(record: Record) -> BehaviourNews:
    if record.value is None:
        raise Permanent(Reason.NULL_VALUE, f"{record.topic} holds updates, not tombstones")
    update = LiveUpdate.decode(record.value)
    is_item = update.entity.kind is EntityKind.ITEM and update.stage is not Stage.NONE
    return BehaviourNews(
        update.entity, arrived=frozenset({update.entity}) if is_item else frozenset()
    )


def _ended(
    value: BehaviourNews,
    applied: Mapping[EntityKey, AppliedHistory],
    waiting: Mapping[EntityKey, Sequence[EntityKey]],
) -> Settled:
    told = [(one, applied[user]) for user, one in value.users.items()]
    if any(one.erased_at_ms != NEVER for one, _ in told):
        return _ERASED
    if any(after.changed for _, after in told) or not value.arrived.isdisjoint(waiting):
        return _WRITTEN
    if told and all(
        event.at_ms <= after.history.erased_at_ms for one, after in told for event in one.events
    ):
        return _TOO_LATE
    return _UNCHANGED
