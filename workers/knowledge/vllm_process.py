"""A vLLM server as a child process: started, waited for, stopped with all that it started itself.

It never outlives this process, however that ends: a server that nobody remembers holds gigabytes.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.errors import ConfigurationError, Transient
from workers.knowledge.vllm_connection import DEPENDENCY, VllmServer
from workers.knowledge.vllm_launch import VllmLaunch
from workers.knowledge.vllm_pages import VllmPages

_POLL_SECONDS = 0.25
_KILL_SECONDS = 10.0
_LOG_TAIL_BYTES = 3_000
_KEY_BYTES = 32
# Becomes the server, after leaving a watcher in its process group that reads from a pipe of ours:
# the kernel tells the watcher of our end even after a SIGKILL, and there is no moment without it.
_WATCHED = 'exec 3<&0; { read -r _ <&3; kill -s KILL -- "-$$"; } & exec "$@" </dev/null 3<&-'


class VllmProcess:
    """A running server; `async with` starts and stops it.

    Args:
        launch: what to start.
        api_key: what the server asks of its callers.
        log_file: what it prints is appended to it.
        inherited: the environment that it is started from.
        stop_seconds: for its orderly end, then it is killed.
    """

    def __init__(
        self,
        launch: VllmLaunch,
        *,
        api_key: str,
        log_file: Path,
        inherited: Mapping[str, str],
        stop_seconds: float = 20.0,
    ) -> None:
        self._launch = launch
        self._api_key = api_key
        self._log_file = log_file
        self._inherited = inherited
        self._stop_seconds = stop_seconds
        self._server: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Start the server; raises ConfigurationError when its port is taken."""
        launch = self._launch
        require_free_port(launch.host, launch.port)
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            self._server = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WATCHED, "vllm", *launch.command()),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=launch.environment(self._inherited, api_key=self._api_key),
                # Ctrl-C in our terminal is for us. And its own children die with its group.
                start_new_session=True,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server and every process that it started."""
        server = self._running
        if server.returncode is None:
            server.terminate()
            try:
                async with asyncio.timeout(self._stop_seconds):
                    await server.wait()
            except TimeoutError:
                pass  # the group is killed next
        self._kill_group(server.pid)
        async with asyncio.timeout(_KILL_SECONDS):
            await server.wait()
        # Only now: closing the pipe before would have been our end to the watcher.
        if server.stdin is not None:
            server.stdin.close()

    async def await_healthy(
        self, *, timeout_seconds: float, on_wait: Callable[[float], None] = lambda _: None
    ) -> None:
        """Return once the server answers with its model; `on_wait` is told the seconds so far.

        Raises Transient with the end of its log when it ends by itself or takes too long.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        pages = VllmPages(VllmServer(self._launch.url, self._api_key))
        try:
            while not await pages.healthy():
                waited = loop.time() - started
                self._check(f"not ready after {waited:.0f} s", late=waited > timeout_seconds)
                on_wait(waited)
                await asyncio.sleep(_POLL_SECONDS)
            # Someone else's server may have taken the port between our look and the server's.
            self._check("gone", late=False)
            if self._launch.model not in await pages.served_models():
                self._check("serves another model than it was started with", late=True)
        finally:
            await pages.aclose()

    async def wait(self) -> int:
        """Return the exit code when the server ends by itself."""
        return await self._running.wait()

    def log_tail(self) -> str:
        """Return the end of its log."""
        with self._log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._server is None:
            raise AssertionError("the server is started by `async with`")
        return self._server

    def _check(self, fact: str, *, late: bool) -> None:
        code = self._running.returncode
        if code is not None:
            fact = f"ended with exit code {code} while starting"
        elif not late:
            return
        raise Transient(DEPENDENCY, f"{fact}; end of {self._log_file}:\n{self.log_tail()}")

    def _kill_group(self, pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody is left, not even the watcher


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigurationError when nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # What the server sets too: connections of a former one may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError("--port", f"{host}:{port}: {error.strerror}") from error


def stored_api_key(path: Path) -> str:
    """Return the key in a file that only its owner may read; the file is made when missing.

    Raises ConfigurationError when it is there and empty: a server would then ask for no key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The mode counts at creation: the key is never readable to others, not even for a moment.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(_KEY_BYTES))
    except FileExistsError:
        path.chmod(0o600)
    key = path.read_text("utf-8").strip()
    if not key:
        raise ConfigurationError("FRESHET_KNOWLEDGE__VLLM_API_KEY", f"{path} is empty")
    return key
