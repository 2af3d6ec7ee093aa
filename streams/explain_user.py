"""What Freshet knows of a user beside documents and vectors: the history, and the gate's mind."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.entities import EntityKey
from schemas.fingerprints import Json
from schemas.history import MINUTE_MS, NEVER, History, HistoryBounds, HistoryEvent
from streams.redis_clients import OpenRedis
from streams.settings import BehaviourSettings
from workers.knowledge.preference_gate import GateState, event_day
from workers.live.gate_store import GateStore
from workers.live.history_store import HistoryStore

SHOWN_EVENTS = 5


@dataclass(frozen=True, slots=True)
class UserFacts:
    """`gate` is None when it never looked at the user; `all_calls` counts everybody's on `day`.

    `day` is the UTC day of the newest interaction, because the gate lives in event time.
    """

    history: History | None
    bounds: HistoryBounds
    gate: GateState | None
    day: str
    all_calls: int
    calls_per_day: int

    @property
    def erased_at_ms(self) -> int:
        """As of when the user was erased; NEVER (-1) if not."""
        return NEVER if self.history is None else self.history.erased_at_ms

    @property
    def events(self) -> tuple[HistoryEvent, ...]:
        """The interactions kept, oldest first."""
        return () if self.history is None else self.history.events

    @property
    def full_minutes(self) -> int:
        """Minutes with as many interactions as a minute may have: others of it may be missing."""
        minutes = Counter(event.at_ms // MINUTE_MS for event in self.events)
        return sum(count >= self.bounds.max_per_minute for count in minutes.values())

    def to_json(self) -> dict[str, Json]:
        """Return JSON-ready values."""
        history, gate = self.history, self.gate
        return {
            "history": None
            if history is None
            else {
                "rev": history.rev,
                "erased_at_ms": None if history.erased_at_ms == NEVER else history.erased_at_ms,
                "events": len(history.events),
                "max_events": self.bounds.max_events,
                "full_minutes": self.full_minutes,
                "newest": [_event_json(event) for event in reversed(self.newest)],
            },
            "gate": None
            if gate is None
            else {
                "reason": gate.reason.value,
                "decided_rev": gate.decided_rev,
                "decided_ms": gate.decided_ms,
                "new_events": gate.new_events,
                "new_weight": gate.new_weight,
                "drift": gate.drift,
                "asked_ms": gate.asked_ms if gate.was_asked else None,
                "asked_rev": gate.asked_rev if gate.was_asked else None,
                "calls": gate.calls,
                "calls_that_day": gate.calls_that_day,
            },
            "budget": {
                "day": self.day,
                "calls": self.all_calls,
                "calls_per_day": self.calls_per_day,
            },
        }

    @property
    def newest(self) -> tuple[HistoryEvent, ...]:
        """The last few interactions, oldest first."""
        return self.events[-SHOWN_EVENTS:]

    def gate_lines(self) -> Iterator[str]:
        """Yield what the gate of preference knowledge last thought, in words."""
        gate = self.gate
        if gate is None:
            yield "has not looked at this user"
            return
        drift = "no drift to measure" if gate.drift is None else f"drift {gate.drift:.3f}"
        yield (
            f"{gate.reason.value} at rev {gate.decided_rev}: {gate.new_events} new events of "
            f"weight {gate.new_weight:.1f}, {drift}"
        )
        asked = (
            f"asked {gate.calls} times, last at rev {gate.asked_rev} ({gate.calls_that_day} that "
            "day)"
            if gate.was_asked
            else "never asked"
        )
        yield f"{asked}; all users: {self.all_calls} of {self.calls_per_day} calls on {self.day}"


async def user_facts(
    redis: OpenRedis, user: EntityKey, behaviour: BehaviourSettings, *, now_ms: int
) -> UserFacts:
    """Gather what Redis holds of a user; raises Transient("redis")."""
    histories = HistoryStore(redis.client, redis.keys, behaviour.bounds, behaviour.idle_ms)
    gates = GateStore(redis.client, redis.keys)
    (history,) = await histories.load([user])
    (state,) = await gates.load([user])
    has_events = history is not None and history.newest_ms != NEVER
    day = event_day(history.newest_ms if history is not None and has_events else now_ms)
    return UserFacts(
        history=history,
        bounds=behaviour.bounds,
        gate=_readable(state),
        day=day,
        all_calls=await gates.calls(day),
        calls_per_day=behaviour.gate_calls_per_day,
    )


def _readable(state: bytes | None) -> GateState | None:
    if state is None:
        return None
    try:
        return GateState.decode(state)
    except ValueError:
        return None  # of another version: the gate begins anew with such a one, too


def _event_json(event: HistoryEvent) -> dict[str, Json]:
    return {
        "at_ms": event.at_ms,
        "action": event.action,
        "item": event.item,
        "value": event.value,
    }
