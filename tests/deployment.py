"""A whole Freshet deployment for fault tests: lanes as real processes on a real Kafka and Redis."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource

from deploy.local.ports import free_port
from schemas.knowledge import EntityRecord
from streams.lag import read_lag
from streams.settings import Settings
from streams.topic_admin import apply
from streams.topology import BEHAVIOUR, LANES, group_id, lane_inputs
from tests.stack import read_topic, wait_until_blocking

REPOSITORY = Path(__file__).parents[1]

ITEM_PATH = tuple(lane for lane in LANES if lane != BEHAVIOUR)
"""The lanes that an item goes through: users cost a test nothing that it does not ask for."""

# A killed worker must be noticed within a test's patience; the rest keeps the order that the
# settings demand (drain < rebalance < request, produce < session).
QUICK = {
    "FRESHET_KAFKA__SESSION_TIMEOUT_SECONDS": "6",
    "FRESHET_KAFKA__PRODUCE_TIMEOUT_SECONDS": "5",
    "FRESHET_KAFKA__HEARTBEAT_INTERVAL_SECONDS": "0.5",
    "FRESHET_KAFKA__COMMIT_INTERVAL_SECONDS": "0.5",
    "FRESHET_LANE__DRAIN_SECONDS": "5",
    "FRESHET_LANE__GRACE_SECONDS": "12",
    "FRESHET_LANE__RETRY_LONGEST_SECONDS": "1",
    "FRESHET_KNOWLEDGE__WRITER": "tests.fakes.version_writer:VersionWriter",
    "FRESHET_KNOWLEDGE__MODEL": "version-writer",
    "FRESHET_KNOWLEDGE__CALL_SECONDS": "3",
}


@dataclass(slots=True)
class LaneProcess:
    """One running lane."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def readiness(self) -> dict[str, Any]:
        """Return the body of /readyz; not ready without reasons while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as page:
                return json.load(page)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except OSError:
            return {"ready": False, "reasons": {}}

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels, as /metrics has it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    @property
    def ready(self) -> bool:
        """Whether records can flow."""
        assert self.process.poll() is None, f"{self.name} ended:\n{self.tail()}"
        return self.readiness()["ready"] is True

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 15.0) -> int:
        """SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def tail(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class Deployment:
    """Lanes of one topic prefix; every process it started is gone after the `with` block."""

    root: Path
    bootstrap_servers: str
    redis_url: str
    prefix: str
    partitions: int = 4
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[LaneProcess] = field(default_factory=list)
    started: int = 0

    def __enter__(self) -> Self:
        apply(self.settings.kafka)
        return self

    def __exit__(self, *_error: object) -> None:
        for lane in self.running:
            if lane.process.poll() is None:
                lane.process.kill()
        for lane in self.running:
            lane.process.wait(10)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its lanes."""
        return {
            **QUICK,
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "FRESHET_KAFKA__TOPIC_PREFIX": self.prefix,
            "FRESHET_KAFKA__PARTITIONS": str(self.partitions),
            "FRESHET_REDIS__URL": self.redis_url,
            "FRESHET_REDIS__KEY_PREFIX": self.prefix,
            "FRESHET_ENCODE__SPACES_DIR": str(self.root / "spaces"),
            **self.environment,
        }

    @property
    def settings(self) -> Settings:
        """The settings that its lanes read."""
        groups: dict[str, dict[str, str]] = {}
        for name, value in self.variables.items():
            group, _, setting = name.removeprefix("FRESHET_").lower().partition("__")
            if name.startswith("FRESHET_"):
                groups.setdefault(group, {})[setting] = value
        return Settings.model_validate(groups)

    def start(self, name: str, **environment: str) -> LaneProcess:
        """Start a lane; it is ready when `lane.ready`."""
        self.started += 1
        port = free_port()
        log = self.root / f"{name}-{self.started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli.main", "lane", name],
                cwd=REPOSITORY,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("FRESHET_")},
                    **self.variables,
                    **environment,
                    "FRESHET_WEB__PORT": str(port),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        lane = LaneProcess(name, process, port, log)
        self.running.append(lane)
        return lane

    def freshet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this deployment to its end."""
        return subprocess.run(
            [sys.executable, "-m", "streams.cli.main", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start_all(self, *names: str, timeout: float = 60.0) -> dict[str, LaneProcess]:
        """Start lanes (by default those of the item path) and wait until they are ready."""
        lanes = {name: self.start(name) for name in names or ITEM_PATH}
        wait_until_blocking(
            lambda: all(lane.ready for lane in lanes.values()), timeout=timeout, interval=0.1
        )
        return lanes

    def lag(self) -> int:
        """Return the records that its lanes together have not settled yet."""
        lanes = {lane.name for lane in self.running}
        return sum(lane.records for lane in read_lag(self.settings.kafka, sorted(lanes)).by_lane())

    def wait_settled(self, timeout: float = 120.0) -> None:
        """Wait until no lane lags, twice in a row: a lane's output is another lane's lag."""
        quiet = 0

        def settled() -> bool:
            nonlocal quiet
            for lane in self.running:
                assert lane.process.poll() in (None, -signal.SIGKILL, 0), lane.tail()
            quiet = quiet + 1 if self.lag() == 0 else 0
            return quiet >= 3

        wait_until_blocking(settled, timeout=timeout, interval=0.3)

    def compact(self, *topics: str) -> None:
        """Let the broker's cleaner compact these topics (names without the prefix) soon."""
        hurry = {
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "200",
        }
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            admin.alter_configs(
                [ConfigResource("TOPIC", self.prefix + topic, hurry) for topic in topics]
            )
        finally:
            admin.close()

    def delete_before(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Let records of each (topic, partition) before an offset go, as retention does in time."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            admin.delete_records({TopicPartition(*tp): end for tp, end in offsets.items()})
        finally:
            admin.close()

    def produce(self, topic: str, *records: tuple[bytes | None, bytes | None]) -> None:
        """Send (key, value) records, whatever they hold, to partition 0 (no prefix is needed)."""
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            compression_type="gzip",
            max_request_size=4_000_000,
        )
        try:
            futures = [
                producer.send(self.prefix + topic, key=key, value=value, partition=0)
                for key, value in records
            ]
            for future in futures:
                future.get(30)
        finally:
            producer.close(10)

    # ---- what is there -------------------------------------------------------------------

    def committed(self, lane: str) -> dict[tuple[str, int], int]:
        """Return the lane's committed offsets by (topic, partition)."""
        return self.committed_by(group_id(self.prefix, lane))

    def committed_by(self, group: str) -> dict[tuple[str, int], int]:
        """Return a group's committed offsets by (topic, partition)."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            offsets = admin.list_group_offsets({group: None})[group]
        finally:
            admin.close()
        return {
            (tp.topic, tp.partition): found.offset
            for tp, found in offsets.items()
            if found.offset >= 0
        }

    def inputs(self, lane: str) -> list[Any]:
        """Return every record of the lane's input topics."""
        return [
            record for topic in lane_inputs(lane) for record in self.records(self.prefix + topic)
        ]

    def records(self, topic: str) -> list[Any]:
        """Return every record of a topic (full name), partition by partition."""
        return read_topic(self.bootstrap_servers, topic)

    def entities(self) -> dict[str, EntityRecord]:
        """Return the newest record of every entity in the compacted topic, by key."""
        newest: dict[str, EntityRecord] = {}
        for record in self.records(self.prefix + "entities"):
            if record.value is None:
                newest.pop(record.key.decode(), None)
            else:
                newest[record.key.decode()] = EntityRecord.decode(record.value)
        return newest


Deploy = Callable[..., Deployment]
"""Starts a deployment with its spaces, on the shared servers or on `own_kafka`, `own_redis`."""
