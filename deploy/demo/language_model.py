"""A vLLM server with the bundled model for a demo or a bench: `freshet llm serve` as a process.

Owns its start, its end, and the settings by which lanes reach it. Its key is made for the run and
lives in the environment of those who need it, never in a command line.
"""

import asyncio
import http.client
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.ports import LOOPBACK, free_port
from deploy.local.server_process import ServerProcess
from streams.llm_server import (
    Wish,
    lane_variables,
    plan_launch,
    sampling_of,
    writing_settings,
)
from streams.settings import KnowledgeSettings, LlmSettings, Settings
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_models import BUNDLED_MODEL
from workers.knowledge.vllm_pages import ServerFigures, VllmPages

REPOSITORY = Path(__file__).parents[2]
API_KEY = "FRESHET_KNOWLEDGE__VLLM_API_KEY"

_PAGE_SECONDS = 5.0
_STOP_SECONDS = 45.0
"""Longer than the server's own orderly end, which comes within that of its parent."""

_CALL_SECONDS = 300.0


class LanguageModel:
    """A server, as a context manager; starts with the block and is ready after `await_ready`.

    Making one looks for the environment and makes the model's folder where it is missing (seconds,
    once). Raises ConfigurationError where vLLM is not installed (it names the command that does
    it), Transient when the model cannot be made.

    Args:
        run_dir: for its log.
        models_dir: where its model is or is made; by default where `freshet llm serve` has it.
        detached: it outlives this process, until someone ends `pid`.
    """

    def __init__(
        self, run_dir: Path, *, models_dir: Path | None = None, detached: bool = False
    ) -> None:
        llm = LlmSettings(
            project=REPOSITORY / "deploy" / "vllm",
            models_dir=models_dir or REPOSITORY / ".freshet" / "models",
            run_dir=run_dir.absolute(),
        )
        self._launch = plan_launch(Settings(llm=llm), Wish(model=BUNDLED_MODEL, port=free_port()))
        self._llm = llm
        self._detached = detached
        self._key = secrets.token_urlsafe()
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self._llm.run_dir.mkdir(parents=True, exist_ok=True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")
        }
        self._process = ServerProcess(
            [
                *(sys.executable, "-m", "streams.cli.main", "llm", "serve"),
                *("--model", str(self._launch.model_dir), "--port", str(self._launch.port)),
            ],
            log_file=self._llm.run_dir / "serve.log",
            environment={
                **inherited,
                "FRESHET_LLM__PROJECT": str(self._llm.project),
                "FRESHET_LLM__RUN_DIR": str(self._llm.run_dir),
                API_KEY: self._key,
            },
            detached=self._detached,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def model(self) -> str:
        """The id under which it serves."""
        return self._launch.model

    @property
    def max_num_seqs(self) -> int:
        """How many answers it writes at once."""
        return self._launch.max_num_seqs

    @property
    def pid(self) -> int:
        """The process id of `freshet llm serve`; with it goes the server."""
        return self._running.pid

    @property
    def variables(self) -> Mapping[str, str]:
        """The settings by which lanes write with this server, its key among them."""
        return {**lane_variables(self._launch), API_KEY: self._key}

    def server(self, *, connections: int = 64, cache_salt: str = "") -> VllmServer:
        """Return the server as a caller of its own sees it, who samples as the lanes do."""
        return VllmServer(
            self._launch.url,
            self._key,
            call_seconds=_CALL_SECONDS,
            connections=connections,
            accepts_priority=True,
            cache_salt=cache_salt,
            sampling=sampling_of(writing_settings(KnowledgeSettings(), self._launch.model)),
        )

    def await_ready(
        self, *, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Return once it answers; raises ServerFailedError with the end of its log.

        `check` is called meanwhile and may raise.
        """

        def healthy() -> bool:
            check()
            return self._is_healthy()

        self._running.await_ready(healthy, name="the vLLM server", timeout_seconds=timeout_seconds)

    def figures(self) -> ServerFigures:
        """Return the server's own figures; raises Transient."""
        return asyncio.run(self._figures())

    def stop(self) -> None:
        """End it, with all that it started; once it is ended, do nothing."""
        if self._process is not None and self._process.running:
            self._process.terminate(timeout_seconds=_STOP_SECONDS)

    @property
    def _running(self) -> ServerProcess:
        if self._process is None:
            raise AssertionError("the server is started by `with`")
        return self._process

    def _is_healthy(self) -> bool:
        # Not urllib: a proxy for the network at large would be asked for pages of this machine.
        connection = http.client.HTTPConnection(LOOPBACK, self._launch.port, timeout=_PAGE_SECONDS)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def _figures(self) -> ServerFigures:
        pages = VllmPages(self.server())
        try:
            return await pages.figures()
        finally:
            await pages.aclose()
