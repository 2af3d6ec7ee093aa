"""What the measuring processes of the plumbing section are told, and how they answer."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Self

from schemas.events import ContentPolicy, DecodeLimits
from streams.settings import ItemsSettings, KafkaSettings, LaneSettings
from tests.bench.pairs import Run

PARTITIONS = 4
BATCH = LaneSettings().max_batch
COMMIT_SECONDS = KafkaSettings().commit_interval_seconds

POLICY = ContentPolicy(frozenset(ItemsSettings().semantic_fields))
LIMITS = DecodeLimits()


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """One run: where the records are, how many, and names that no other run has."""

    bootstrap_servers: str
    redis_url: str
    topic_prefix: str
    key_prefix: str
    group: str
    count: int

    @property
    def kafka(self) -> KafkaSettings:
        """Kafka as a lane's settings describe it."""
        return KafkaSettings(
            bootstrap_servers=self.bootstrap_servers,
            topic_prefix=self.topic_prefix,
            partitions=PARTITIONS,
        )

    def encode(self) -> str:
        """Return the configuration as a command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return what `encode` wrote."""
        return cls(**json.loads(text))


class Stopwatch:
    """Wall clock and CPU time from the first record to the last."""

    def __init__(self) -> None:
        self.started = False
        self._wall = self._cpu = 0.0

    def start(self) -> None:
        """Note the first record."""
        self.started = True
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, count: int) -> Run:
        """Return the run, at the last record."""
        return Run(count, time.perf_counter() - self._wall, time.process_time() - self._cpu)
