"""The reckoning for users: a vector must show the newest event, and who was erased has none."""

from collections.abc import Mapping, Sequence

from deploy.demo.schedule import Schedule
from deploy.demo.user_plans import NEW_ACTS, UserEvent
from deploy.demo.watch import Reader


def users_unaccounted(schedule: Schedule, reader: Reader) -> list[str]:
    """Return what is wrong with users, one line each; raises Transient.

    Users who rated nothing but films that were removed later may have a vector or none.
    """
    newest = _newest_ms(schedule)
    users = [*newest, *schedule.erased]
    with reader.pin() as view:
        vectors = view.get([f"user:{user}" for user in users])
    shown = dict(zip(users, vectors.event_times_ms.tolist(), strict=True))
    there = dict(zip(users, vectors.found.tolist(), strict=True))
    return [
        *(f"user {user} has no vector" for user in newest if not there[user]),
        *(
            f"user {user}: the vector is of {shown[user]}, the newest event of {at_ms}"
            for user, at_ms in newest.items()
            if there[user] and shown[user] < at_ms
        ),
        *(f"user {user} was erased and has a vector" for user in schedule.erased if there[user]),
    ]


def _newest_ms(schedule: Schedule) -> Mapping[str, int]:
    """Return the newest event time of each user who must have a vector."""
    newest: dict[str, int] = {}
    lasting: set[str] = set()
    for event in _additions(schedule):
        newest[event.user_id] = max(event.occurred_ms, newest.get(event.user_id, 0))
        if event.item_id not in schedule.removed:
            lasting.add(event.user_id)
    return {user: at_ms for user, at_ms in newest.items() if user in lasting - schedule.erased}


def _additions(schedule: Schedule) -> Sequence[UserEvent]:
    records = (*schedule.history, *schedule.summer)
    return [r for r in records if isinstance(r, UserEvent) and r.kind in NEW_ACTS]
