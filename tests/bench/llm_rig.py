"""What the llm section measures with: a server, lanes, requests, and whoever waits for answers."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from deploy.demo.lane_processes import LaneProcess, wait_until_ready
from deploy.demo.language_model import LanguageModel
from schemas.knowledge import RequestKind
from schemas.topics import Topic
from streams.settings import KafkaSettings, Settings
from streams.topic_admin import apply
from tests.bench.live_deployment import PARTITIONS
from tests.bench.llm_bare import BareCaller
from tests.bench.llm_traffic import AnswerWatch, Requests, Subject
from tests.bench.workbench import Workbench
from workers.knowledge.prompts import Domain
from workers.live.connection import connect, run_id
from workers.live.keys import Keys
from workers.live.view_marker import ViewMarker
from workers.live.view_partitions import ViewPartitions

PREFIX = "llm."
"""Before every topic, group and key."""

_LANE_SECONDS = 120.0


@dataclass(slots=True)
class Rig:
    """What is measured with."""

    bench: Workbench
    model: LanguageModel
    domain: Domain
    requests: Requests
    watch: AnswerWatch
    bare: BareCaller
    pool: Iterator[Subject]

    def films(self, count: int) -> list[Subject]:
        """Return films that nobody was asked about yet."""
        return list(islice(self.pool, count))

    def through_the_lane(self, asked: list[Subject]) -> float:
        """Return the seconds from the requests to the last of their answers on `knowledge`."""
        began = time.perf_counter()
        self.requests.send(Topic.KNOWLEDGE_REQUESTS, RequestKind.NEW, asked)
        return self.watch.await_all(asked) - began

    def after_acknowledgement(self, asked: Subject) -> float:
        """Return the seconds from the broker's acknowledgement of a request to its answer."""
        began = self.requests.send(Topic.KNOWLEDGE_REQUESTS, RequestKind.NEW, [asked])
        return self.watch.await_all([asked]) - began


def deploy(bench: Workbench) -> dict[str, str]:
    """Make topics and an empty, whole view; return the settings of lanes that work on them.

    No encode lane runs: it would take the language model's processor.
    """
    settings = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=bench.bootstrap_servers, topic_prefix=PREFIX, partitions=PARTITIONS
        )
    )
    apply(settings.kafka)
    asyncio.run(_declare_whole(bench.redis_url))
    return {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": bench.bootstrap_servers,
        "FRESHET_KAFKA__TOPIC_PREFIX": PREFIX,
        "FRESHET_KAFKA__PARTITIONS": str(PARTITIONS),
        "FRESHET_REDIS__URL": bench.redis_url,
        "FRESHET_REDIS__KEY_PREFIX": PREFIX,
        "FRESHET_LOG_LEVEL": "warning",
    }


async def _declare_whole(redis_url: str) -> None:
    """Say of an empty view what the encode lane would find out about it."""
    redis, keys = connect(redis_url), Keys(PREFIX)
    here = await run_id(redis)
    for partition in range(PARTITIONS):
        await ViewPartitions(redis, keys).verify(partition, here)
    await ViewMarker(redis, keys).stamp()
    await redis.aclose()


@contextmanager
def lane(rig: Rig, name: str, variables: Mapping[str, str]) -> Iterator[LaneProcess]:
    """Give a lane that is ready; it ends with the block."""
    process = LaneProcess(name, variables, log_file=rig.bench.folder / f"llm-{name}.log")
    try:
        wait_until_ready({name: process}, timeout_seconds=_LANE_SECONDS)
        yield process
    finally:
        process.stop()
