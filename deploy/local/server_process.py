"""One server as a child process: its log file, its signals, and its end together with ours.

Knows nothing about Kafka or Redis. A server either dies with this process, however that ends
(SIGKILL included), or is detached and lives on until `terminate_pid`.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 4_000
# Held by a pipe from us, so it is told of our end by the kernel even if we are killed. PDEATHSIG
# would not do: it fires when the *thread* that started the server ends.
_REAPER_SCRIPT = 'read -r _; kill -KILL "$0"'


class ServerFailedError(Exception):
    """A server did not start, or did not do what was asked of it in time."""


class ServerProcess:
    """A running server process. Start it by construction; end it by `terminate` or `kill`.

    Args:
        command: program and arguments.
        log_file: stdout and stderr are appended to it.
        stdin_text: written to the server's standard input, which is then closed.
        environment: the server's whole environment.
        detached: the server outlives this process.

    Raises:
        ServerFailedError: the program could not be started at all.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_file: Path,
        stdin_text: str = "",
        environment: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        self.log_file = log_file
        with log_file.open("ab") as log:
            try:
                self._server = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    # Ctrl-C in our terminal is for us; we then stop the server in order.
                    start_new_session=True,
                )
            except OSError as error:
                raise ServerFailedError(f"{command[0]} could not be started: {error}") from error
        self._reaper = None if detached else _start_reaper(self._server.pid)
        self._send_input(stdin_text)

    @property
    def pid(self) -> int:
        """The process id, also after its end."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the process still exists."""
        if self._server.poll() is None:
            return True
        self._dismiss_reaper()
        return False

    def await_ready(
        self, is_ready: Callable[[], bool], *, name: str, timeout_seconds: float
    ) -> None:
        """Return once `is_ready()`; on failure the process is gone.

        Raises:
            ServerFailedError: it exited or was not ready in time; holds the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.running:
                fact = f"{name} exited with code {self._server.returncode} while starting"
                raise ServerFailedError(f"{fact}; end of {self.log_file}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                fact = f"{name} was not ready after {timeout_seconds:g} s"
                raise ServerFailedError(f"{fact}; end of {self.log_file}:\n{self._log_tail()}")
            time.sleep(_POLL_SECONDS)

    def terminate(self, *, timeout_seconds: float) -> None:
        """Ask the server to end (SIGTERM) and wait; kill it when it takes longer."""
        self.resume()  # a paused process would never see the signal
        self._server.terminate()
        try:
            self._server.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._dismiss_reaper()

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would."""
        self._server.kill()
        self._server.wait()
        self._dismiss_reaper()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): its port still accepts connections, nothing answers."""
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._server.send_signal(signal.SIGCONT)

    def _send_input(self, text: str) -> None:
        if self._server.stdin is None:
            raise AssertionError("the server was started with a pipe as standard input")
        try:
            with self._server.stdin as stdin:
                stdin.write(text.encode())
        except BrokenPipeError:
            return  # it is already gone; await_ready says so, with its log

    def _dismiss_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.kill()
            self._reaper.communicate()
            self._reaper = None

    def _log_tail(self) -> str:
        return self.log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")


def command_line(pid: int) -> str:
    """Return the command line of a process of this machine; empty when it is gone or a zombie."""
    proc = Path("/proc")
    if (proc / "self").exists():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""
    listing = subprocess.run(
        ["/bin/ps", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return listing.stdout.strip()


def terminate_pid(pid: int, marker: str, *, timeout_seconds: float) -> None:
    """End a detached server: SIGTERM, then SIGKILL. A process without `marker` is not touched.

    Args:
        pid: what the state file remembered; the number may belong to somebody else by now.
        marker: part of the server's command line.
        timeout_seconds: for the orderly end.
    """
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if marker not in command_line(pid):
            return
        os.kill(pid, sent)
        deadline = time.monotonic() + timeout_seconds
        while marker in command_line(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _start_reaper(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _REAPER_SCRIPT, str(pid)], stdin=subprocess.PIPE, start_new_session=True
    )
