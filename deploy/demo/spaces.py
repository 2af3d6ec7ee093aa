"""The spaces of the demo: fitted on the back catalogue alone, then registered as the active ones.

Fitting runs in a process of its own, as an operator would run it: it takes torch and a while, and
Kafka can start meanwhile.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.films import Film, recorded_answers, write_jsonl
from deploy.local.server_process import ServerFailedError

RAW_SPACE = "minilm-parts"
SPACE = "parts-pca"

_POLL_SECONDS = 0.1
_LOG_TAIL_BYTES = 4_000


class SpaceFit:
    """`freshet spaces fit` on some films and their recorded knowledge, as a context manager.

    Args:
        films: what the space is fitted on.
        settings: FRESHET_ variables, the spaces directory among them.
        folder: holds the files it reads and its log.
    """

    def __init__(self, films: list[Film], settings: Mapping[str, str], *, folder: Path) -> None:
        catalog, knowledge = folder / "catalog.jsonl", folder / "knowledge.jsonl"
        write_jsonl(catalog, ({"item_id": film.item_id, **film.fields} for film in films))
        answers = recorded_answers(frozenset(film.item_id for film in films))
        knowledge.write_bytes(b"".join(line + b"\n" for line in answers))
        self._log_file = folder / "fit.log"
        arguments = ["fit", SPACE, "--catalog", str(catalog), "--knowledge", str(knowledge)]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli.main", "spaces", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **settings},
                start_new_session=True,  # Ctrl-C is for us
            )

    def wait(self, *, timeout_seconds: float, check: Callable[[], None] = lambda: None) -> None:
        """Return when the space is there; raises ServerFailedError with the end of its log."""
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None:
            check()
            if time.monotonic() > deadline:
                raise self._failed(f"took longer than {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        if self._process.returncode:
            raise self._failed(f"ended with code {self._process.returncode}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _failed(self, fact: str) -> ServerFailedError:
        tail = self._log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return ServerFailedError(f"fitting the space {fact}; end of {self._log_file}:\n{tail}")
