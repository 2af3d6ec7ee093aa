"""Whoever looks out for what becomes visible during a run, films and users, as one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.demo.new_users import NewUsers
from deploy.demo.watch import Sighting, Watcher
from workers.live.live_vectors import LiveVectors

_READER_SECONDS = 5.0
"""Longer than a ranker would wait: on a busy machine a late answer beats none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Who looks out for films, and who for new users."""

    films: Watcher
    users: NewUsers

    @property
    def pending(self) -> int:
        """How much is still expected."""
        return self.films.pending + self.users.pending

    def check(self) -> None:
        """Raise what ended one of the threads."""
        self.films.check()
        self.users.check()

    def read_from(self, reader: LiveVectors) -> None:
        """Read through another reader from now on."""
        self.films.read_from(reader)
        self.users.read_from(reader)


def open_reader(redis_url: str) -> LiveVectors:
    """Return a reader that knows of no space yet."""
    return LiveVectors(redis_url, timeout_seconds=_READER_SECONDS)


@contextmanager
def seeing(
    redis_url: str, on_sighting: Callable[[Sighting], None], *, knowledge_is_sure: bool = True
) -> Iterator[Seen]:
    """Look out as long as the block lives."""
    with (
        open_reader(redis_url) as reader,
        Watcher(reader, on_sighting, knowledge_is_sure=knowledge_is_sure) as films,
        NewUsers(reader) as users,
    ):
        yield Seen(films, users)
