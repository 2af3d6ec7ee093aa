"""Making the vectors of users whom another process may change, or erase, at the same time.

For whoever may not own the users' partition: the restore, the lane of a new space, and the
behaviour lane for users who waited for an item.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.entities import EntityKey
from schemas.history import History
from streams.lanes.user_vectors import MadeVectors


class HistoryReaderPort(Protocol):
    """Where histories are read."""

    async def load(self, users: Sequence[EntityKey]) -> list[History | None]:
        """Return the history of each user, in order; None where there is none."""


class UserVectorsPort(Protocol):
    """Who makes user vectors from histories, in every space that takes them from there."""

    async def put(self, histories: Mapping[EntityKey, History]) -> MadeVectors:
        """Write the users' vectors, delete those that nothing is left for; raises Transient."""


async def put_vectors(
    vectors: UserVectorsPort, histories: HistoryReaderPort, users: Mapping[EntityKey, History]
) -> MadeVectors:
    """Make the vectors of users from their histories as read just now; raises Transient.

    Whoever erased one after it was read also deleted the vectors, and nothing was there any more to
    compare revisions with: such a user is looked at again.
    """
    if not users:
        return MadeVectors()
    made = await vectors.put(users)
    with_events = [user for user, history in users.items() if history.events]
    after = await histories.load(with_events)
    erased = {
        user: history
        for user, history in zip(with_events, after, strict=True)
        if history is not None and not history.events
    }
    if erased:
        await vectors.put(erased)
    return made
