"""What the local servers have in common: they start, stop, crash, freeze and come back."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Self

from deploy.local.server_process import ServerFailedError, ServerProcess


class LocalServer(ABC):
    """A server on the loopback interface; a context manager that starts and stops it."""

    _NAME: ClassVar[str]
    _START_SECONDS: ClassVar[float]
    _STOP_SECONDS: ClassVar[float]

    _process: ServerProcess | None = None

    @abstractmethod
    def _spawn(self) -> ServerProcess:
        """Start the process; raises ServerFailedError."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Return whether the process that was started serves."""

    @property
    def running(self) -> bool:
        """Whether the server's process exists."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """The process id of the running server; raises ServerFailedError when it never ran."""
        return self._started().pid

    def start(self) -> None:
        """Start the server and return once it serves; does nothing when it is running.

        Raises:
            ServerFailedError: with the end of its log; or its program is not there.
        """
        if self.running:
            return
        self._process = self._spawn()
        self._process.await_ready(
            self._is_ready, name=self._NAME, timeout_seconds=self._START_SECONDS
        )

    def stop(self) -> None:
        """End the server in order (SIGTERM); its data stays."""
        if self.running:
            self._started().terminate(timeout_seconds=self._STOP_SECONDS)

    def kill(self) -> None:
        """End the server at once (SIGKILL); its data stays."""
        if self.running:
            self._started().kill()

    def restart(self) -> None:
        """Stop the server if it runs, then start it on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open and nothing answers."""
        self._started().pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self._started().resume()

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

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise ServerFailedError(f"{self._NAME} was not started")
        return self._process
