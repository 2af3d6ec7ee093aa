"""The fake vLLM server as a process of its own, for tests that kill, stop or exchange it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.ports import free_port
from tests.fakes.vllm_server import Behaviour
from tests.stack import wait_until_blocking

_REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 30.0


class VllmServerProcess:
    """One server at one address, whatever becomes of its process."""

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._serves = ""
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self, *, model: str | None = None) -> None:
        """Serve this model, by default the usual one; return once it answers."""
        self._serves = model or self._model
        arguments = [str(self._port), self._serves]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.vllm_server", *arguments],
            cwd=_REPOSITORY,
            stdout=subprocess.DEVNULL,
        )
        wait_until_blocking(self._answers, timeout=_START_SECONDS)

    def mend(self) -> None:
        """Serve the usual model in good health, whatever it was before."""
        if self._process is None or self._process.poll() is not None or self._serves != self._model:
            self.kill()
            self.start()
        self.go_on()
        self.behave(Behaviour.ANSWER)

    def kill(self) -> None:
        """SIGKILL, if it runs; a stopped one ends too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def stop(self) -> None:
        """Let it hang as a whole: the machine still accepts connections, and nobody answers."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a stop."""
        os.kill(self._pid, signal.SIGCONT)

    def behave(self, behaviour: Behaviour) -> int:
        """Answer all calls from now on so; return how many there were before."""
        return self._script({"default": behaviour})

    def calls(self) -> int:
        """Return how many calls it got since it started."""
        return self._script({})

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the fake vLLM server ended by itself"
        try:
            self.calls()
        except OSError:
            return False
        return True

    def _script(self, wish: dict[str, str]) -> int:
        request = urllib.request.Request(f"{self.url}/script", json.dumps(wish).encode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(json.load(answer)["requests"])
