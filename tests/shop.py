"""Both producers and the reader of one deployment, for tests that follow a few users."""

from datetime import UTC, datetime, timedelta

from streams.producers import BehaviourProducer, CatalogProducer
from tests.deployment import Deployment
from tests.stack import wait_until_blocking
from workers.live.live_vectors import LiveVectors
from workers.live.vectors import Vectors

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Shop:
    """Every call returns once Kafka has what it sent. Times are minutes after `AT`."""

    def __init__(self, deployment: Deployment) -> None:
        servers, prefix = deployment.bootstrap_servers, deployment.prefix
        self.deployment = deployment
        self.catalog = CatalogProducer(servers, topic_prefix=prefix)
        self.behaviour = BehaviourProducer(servers, topic_prefix=prefix)
        self.live = LiveVectors(deployment.redis_url, key_prefix=prefix)

    def close(self) -> None:
        self.catalog.close(5)
        self.behaviour.close(5)
        self.live.close()

    def add_item(self, id_: str) -> None:
        self.catalog.upsert(id_, 1, {"title": f"Film {id_}", "genres": ["Drama"]})
        self.catalog.flush(10)

    def like(self, user: str, item: str, *, minutes: float = 0, event_id: str = "") -> None:
        self.act(user, item, "like", minutes=minutes, event_id=event_id)

    def act(
        self, user: str, item: str, action: str, *, minutes: float = 0, event_id: str = ""
    ) -> None:
        self.behaviour.interaction(
            user,
            item,
            action,
            event_id=event_id or f"{item}@{minutes}",
            occurred_at=AT + timedelta(minutes=minutes),
        )
        self.behaviour.flush(10)

    def erase(self, user: str, *, minutes: float) -> None:
        self.behaviour.erase(user, AT + timedelta(minutes=minutes))
        self.behaviour.flush(10)

    def read(self, *keys: str) -> Vectors:
        with self.live.pin() as view:
            return view.get(keys)

    def has(self, key: str) -> bool:
        """Whether rankers find a vector."""
        return bool(self.read(key).found[0])

    def wait_for(self, key: str, rev_above: int = -1) -> Vectors:
        """Return an entity's vector once there is one of a later revision."""

        def is_there() -> bool:
            found = self.read(key)
            return bool(found.found[0]) and found.revs[0] > rev_above

        wait_until_blocking(is_there, timeout=30)
        return self.read(key)

    def wait_gone(self, key: str) -> None:
        """Return once rankers find no vector."""
        wait_until_blocking(lambda: not self.has(key), timeout=30)
