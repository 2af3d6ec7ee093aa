"""The whole local stack: one Kafka, one Redis, and how a lane's settings name them.

Owns the state file by which a stack that outlives its starter is found and stopped again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from deploy.local.server_process import command_line, terminate_pid

DEFAULT_ROOT = Path(__file__).parents[2] / ".freshet" / "local"
_STATE_FILE = "stack.json"
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class StackState:
    """A started stack, as its state file remembers it."""

    kafka_bootstrap_servers: str
    redis_url: str
    kafka_pid: int
    redis_pid: int
    # Parts of the command lines: a process id alone may have gone to another process.
    kafka_marker: str
    redis_marker: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that point Freshet at this stack."""
        return {
            "FRESHET_KAFKA__BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
            "FRESHET_REDIS__URL": self.redis_url,
        }

    @property
    def kafka_running(self) -> bool:
        """Whether the broker's process still exists."""
        return self.kafka_marker in command_line(self.kafka_pid)

    @property
    def redis_running(self) -> bool:
        """Whether the Redis process still exists."""
        return self.redis_marker in command_line(self.redis_pid)

    @property
    def running(self) -> bool:
        """Whether both servers' processes exist."""
        return self.kafka_running and self.redis_running


class LocalStack:
    """Kafka and Redis together, for the time of a `with` block or, detached, until stopped.

    Args:
        root: holds the data of both; made when missing.
        kafka_port: 0 takes a free one.
        redis_port: 0 takes a free one.
        detached: the servers outlive this process; `read_state` and `stop_detached` find them.
    """

    def __init__(
        self, root: Path, *, kafka_port: int = 0, redis_port: int = 0, detached: bool = False
    ) -> None:
        self.root = root.absolute()
        self.kafka = KafkaServer(self.root / "kafka", port=kafka_port, detached=detached)
        self.redis = RedisServer(self.root / "redis", port=redis_port, detached=detached)
        self._detached = detached

    @property
    def state(self) -> StackState:
        """Where the running servers are; raises ServerFailedError when they never ran."""
        return StackState(
            kafka_bootstrap_servers=self.kafka.bootstrap_servers,
            redis_url=self.redis.url,
            kafka_pid=self.kafka.pid,
            redis_pid=self.redis.pid,
            kafka_marker=f"kafka.Kafka {self.kafka.properties_file}",
            redis_marker=f"redis-server 127.0.0.1:{self.redis.port}",
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that point Freshet at this stack."""
        return self.state.environment

    def start(self) -> None:
        """Start both and return once they serve; on failure neither is left running.

        Raises:
            ServerFailedError: with the end of the failed server's log.
        """
        try:
            self.redis.start()
            self.kafka.start()
        except BaseException:
            self.stop()
            raise
        if self._detached:
            _state_file(self.root).write_text(json.dumps(asdict(self.state), indent=1))

    def stop(self) -> None:
        """End both in order; their data stays."""
        self.kafka.stop()
        self.redis.stop()
        if self._detached:
            _state_file(self.root).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def read_state(root: Path) -> StackState | None:
    """Return what the last detached stack below `root` left, whether it still runs or not."""
    try:
        return StackState(**json.loads(_state_file(root).read_text()))
    except (OSError, ValueError, TypeError):
        # None was started, or by another version of this program.
        return None


def stop_detached(root: Path) -> None:
    """End the detached stack below `root`, if there is one."""
    state = read_state(root)
    if state is None:
        return
    terminate_pid(state.kafka_pid, state.kafka_marker, timeout_seconds=_STOP_SECONDS)
    terminate_pid(state.redis_pid, state.redis_marker, timeout_seconds=_STOP_SECONDS)
    _state_file(root).unlink(missing_ok=True)


def _state_file(root: Path) -> Path:
    return root / _STATE_FILE
