"""What the measuring processes of the behaviour section are told."""

from dataclasses import dataclass

from streams.settings import RedisSettings, Settings
from tests.bench.loop_config import LoopConfig


@dataclass(frozen=True, slots=True)
class BehaviourConfig(LoopConfig):
    """One run: `count` events in `records` records, of `users` who have done something before."""

    records: int
    users: int

    @property
    def settings(self) -> Settings:
        """What a lane of this run would load."""
        return Settings(
            kafka=self.kafka, redis=RedisSettings(url=self.redis_url, key_prefix=self.key_prefix)
        )

    @property
    def events_a_record(self) -> float:
        """How many events share a record, on average."""
        return self.count / self.records
