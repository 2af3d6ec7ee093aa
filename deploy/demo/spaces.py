"""The spaces of the demo: the raw one first, then the one that rankers read.

Lanes can take in the back catalogue with the raw space alone; a space fitted on their parts needs
no second encoding, so all films have a say in it. A learned one is trained before anything starts.
Each step runs in a process of its own, as an operator would run it: `python -m deploy.demo.spaces
STEP SPACE`.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.demo.options import LiveSpace
from deploy.local.server_process import ServerFailedError
from streams.settings import Settings

RAW_SPACE = "minilm-parts"

_POLL_SECONDS = 0.1
_LOG_TAIL_BYTES = 4_000


class Step(StrEnum):
    """What there is to do about spaces."""

    TRAINED = "trained"  # put a trained space where lanes find it; needs no Kafka
    RAW = "raw"  # make the raw space; needs the encoder and no Kafka
    LIVE = "live"  # fit a space on all that is live, or take the trained one; let rankers read it


class SpaceProcess:
    """One step, as a context manager. Starts on construction.

    Args:
        step: what it does.
        space: the one that rankers are to read.
        settings: FRESHET_ variables, the spaces directory among them.
        log_file: holds what it prints: a line for everything it begins.
    """

    def __init__(
        self, step: Step, space: LiveSpace, settings: Mapping[str, str], *, log_file: Path
    ) -> None:
        self._log_file = log_file
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.demo.spaces", step, space],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **settings},
                start_new_session=True,  # Ctrl-C is for us
            )

    def wait(
        self,
        *,
        timeout_seconds: float,
        check: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Return when it is done; raises ServerFailedError with the end of its log.

        `check` is called now and then and may raise; `say` gets what the process does now.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None:
            check()
            lines = self._printed().splitlines()
            if lines:
                say(lines[-1])
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

    def _printed(self) -> str:
        return self._log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")

    def _failed(self, fact: str) -> ServerFailedError:
        return ServerFailedError(
            f"making the spaces {fact}; end of {self._log_file}:\n{self._printed()}"
        )


async def _take_over(settings: Settings, space: LiveSpace) -> None:
    """Do what these commands do, in order, without waiting for an interpreter each time.

    freshet spaces fit parts-pca --catalog topic --knowledge topic    (not of a trained space)
    freshet spaces create parts-pca --active
    freshet rebuild
    freshet spaces activate parts-pca
    """
    # Not above: making the raw space needs none of them.
    from streams.rebuild import rebuild_command
    from streams.spaces_admin import activate, create, fit

    if space is LiveSpace.PARTS_PCA:
        print("fitting it on all films that are live", flush=True)
        await fit(settings, name=space, catalog="topic", knowledge="topic")
    print("filling it", flush=True)
    await create(settings, space, active=True)
    await rebuild_command(settings)
    await activate(settings, space)


def _main(step: Step, space: LiveSpace) -> None:
    settings = Settings.load()
    match step:
        case Step.TRAINED:
            from deploy.demo.learned_space import put_learned_space

            put_learned_space(settings)
        case Step.RAW:
            from streams.raw_space import make_raw_space

            make_raw_space(settings)
        case Step.LIVE:
            from streams.logs import configure

            configure("warning", "console")
            asyncio.run(_take_over(settings, space))


if __name__ == "__main__":
    _main(Step(sys.argv[1]), LiveSpace(sys.argv[2]))
