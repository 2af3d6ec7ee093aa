"""The bench's own Kafka and Redis, its scratch folder, and how it says what it is doing."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.local.stack import LocalStack

REPOSITORY = Path(__file__).parents[2]
RUN_SECONDS = 180.0


class BenchFailedError(Exception):
    """A measuring process failed; holds the end of what it said."""


class SectionSkippedError(Exception):
    """A section has no place on this machine; says what is missing."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every section gets. `rounds` is the number of pairs, `quick` asks for less of all."""

    stack: LocalStack
    folder: Path
    console: Console
    rounds: int
    quick: bool

    @property
    def bootstrap_servers(self) -> str:
        """The broker."""
        return self.stack.kafka.bootstrap_servers

    @property
    def redis_url(self) -> str:
        """The Redis that sections share, each under key prefixes of its own."""
        return self.stack.redis.url

    def say(self, text: str) -> None:
        """Report progress on standard error."""
        self.console.print(f"[dim]bench[/] {text}", highlight=False)

    def size(self, full: int, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else full

    def measure(self, module: str, *arguments: str) -> Mapping[str, object]:
        """Run `python -m module ARGUMENTS FILE`; return the JSON object that it left in FILE."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments, str(answer)],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode or not answer.exists():
            tail = "\n".join((done.stderr + done.stdout).splitlines()[-20:])
            raise BenchFailedError(f"{module} {arguments[0]} ended with {done.returncode}:\n{tail}")
        facts: Mapping[str, object] = json.loads(answer.read_bytes())
        return facts


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with other Freshet settings."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")
    }
    return {**inherited, **(settings or {})}
