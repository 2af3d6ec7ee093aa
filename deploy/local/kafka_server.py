"""A real Apache Kafka of one broker (KRaft, broker and controller in one process) for a developer.

Owns its data folder, its configuration and its readiness. Data survives `stop`, `kill` and a
restart on the same port, so tests can fail the broker under load.
"""

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from deploy.local.kafka_jars import DEFAULT_CACHE, KafkaRuntime, kafka_runtime
from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, accepts_connections, free_port
from deploy.local.server_process import ServerFailedError, ServerProcess

_FORMAT_SECONDS = 60.0
_REQUEST_MS = 2_000

# For quick starts and a small footprint; -Xlog keeps the JVM's own chatter out of the log.
_JVM_FLAGS = (
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-XX:-UsePerfData",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Dlog4j2.level=WARN",
)
# They would change which Java runs, and how.
_JAVA_VARIABLES = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "JAVA_HOME"})

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # One broker is the whole cluster.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Topics are declared, never made by a typing mistake.
    "auto.create.topics.enable": "false",
    # The log of a 3 MB document that compresses badly, with room for its headers.
    "message.max.bytes": "4194304",
    "replica.fetch.max.bytes": "4194304",
    # After SIGKILL the new broker waits until the session of the dead one has expired.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    # Groups form at once, and tests may use short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # Compaction and retention are seen within seconds where a topic's settings ask for it.
    "log.cleaner.backoff.ms": "500",
    "log.retention.check.interval.ms": "5000",
    "log.initial.task.delay.ms": "500",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "num.network.threads": "2",
    "num.io.threads": "2",
}


class KafkaServer(LocalServer):
    """One Kafka broker on the loopback interface.

    Args:
        data_dir: holds its configuration, log segments and log file; made when missing.
        port: of the broker; 0 takes a free one, which it keeps over restarts.
        settings: server properties, over the built-in ones.
        max_heap_megabytes: of the JVM.
        cache_dir: where the jars are kept.
        detached: the broker outlives this process.
    """

    _NAME = "Apache Kafka"
    _START_SECONDS = 60.0
    _STOP_SECONDS = 15.0

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        max_heap_megabytes: int = 256,
        cache_dir: Path = DEFAULT_CACHE,
        detached: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "kafka.log"
        self.properties_file = self.data_dir / "server.properties"
        self._controller_port = free_port()
        self._settings = dict(settings or {})
        self._max_heap_megabytes = max_heap_megabytes
        self._cache_dir = cache_dir
        self._detached = detached

    @property
    def bootstrap_servers(self) -> str:
        """The address clients are given."""
        return f"{LOOPBACK}:{self.port}"

    def _spawn(self) -> ServerProcess:
        runtime = kafka_runtime(self._cache_dir)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._write_properties()
        if not (self._log_dir / "meta.properties").exists():
            self._format_storage(runtime)
        return ServerProcess(
            [*self._java(runtime), "kafka.Kafka", str(self.properties_file)],
            log_file=self.log_file,
            environment=_environment(),
            detached=self._detached,
        )

    @property
    def _log_dir(self) -> Path:
        return self.data_dir / "log"

    def _write_properties(self) -> None:
        broker = f"PLAINTEXT://{LOOPBACK}:{self.port}"
        controller = f"{LOOPBACK}:{self._controller_port}"
        properties = {
            "listeners": f"{broker},CONTROLLER://{controller}",
            "advertised.listeners": broker,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self._log_dir),
            **_SETTINGS,
            **self._settings,
        }
        lines = (f"{name}={value}\n" for name, value in properties.items())
        self.properties_file.write_text("".join(lines))

    def _java(self, runtime: KafkaRuntime) -> list[str]:
        heap = f"-Xmx{self._max_heap_megabytes}m"
        return [str(runtime.java), heap, *_JVM_FLAGS, "-cp", runtime.class_path]

    def _format_storage(self, runtime: KafkaRuntime) -> None:
        arguments = ["format", "-t", _new_cluster_id(), "-c", str(self.properties_file)]
        formatting = subprocess.run(
            [*self._java(runtime), "kafka.tools.StorageTool", *arguments],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
            check=False,
        )
        if formatting.returncode:
            output = formatting.stdout + formatting.stderr
            raise ServerFailedError(f"{self._log_dir} could not be formatted:\n{output}")

    def _is_ready(self) -> bool:
        # The port opens before the controller has accepted the broker: only metadata tells.
        return accepts_connections(self.port) and _serves_all_partitions(
            self.bootstrap_servers, cluster_id=self._cluster_id()
        )

    def _cluster_id(self) -> str:
        lines = (self._log_dir / "meta.properties").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)["cluster.id"]


def _serves_all_partitions(bootstrap_servers: str, *, cluster_id: str) -> bool:
    """Return whether this cluster lists a broker and every partition has a leader."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap_servers,
            bootstrap_timeout_ms=_REQUEST_MS,
            request_timeout_ms=_REQUEST_MS,
        )
    except KafkaError:
        return False
    try:
        cluster = admin.describe_cluster()
        topics = admin.describe_topics()
        leaders = [part["leader_id"] for topic in topics for part in topic["partitions"]]
        # Another broker may have had the port all along; ours is then about to fail.
        ours = cluster["cluster_id"] == cluster_id
        return ours and bool(cluster["brokers"]) and min(leaders, default=0) >= 0
    except KafkaError:
        return False
    finally:
        admin.close()


def _new_cluster_id() -> str:
    """Return a random Kafka UUID; one that starts with '-' would read as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))[0] == "-":
        pass
    return text


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}
