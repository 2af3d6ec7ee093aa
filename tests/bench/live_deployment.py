"""A deployment of real lane processes on the bench's stack, and the spaces that they write."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.lane_processes import LaneProcess, wait_until_ready
from streams.lag import read_lag
from streams.settings import (
    EncodeSettings,
    KafkaSettings,
    KnowledgeSettings,
    RedisSettings,
    Settings,
)
from streams.spaces_admin import create
from streams.topic_admin import apply
from tests.bench.films import write_answers, write_catalogue
from tests.bench.workbench import REPOSITORY, BenchFailedError, Workbench, environment

SPACE = "parts-pca"
RAW_SPACE = "minilm-parts"
PARTITIONS = 4

_FIT_ITEMS = 400
_FIT_SECONDS = 300.0
_READY_SECONDS = 120.0
_SETTLED_SECONDS = 300.0
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class LiveDeployment:
    """Topics, keys and spaces under one prefix; `lanes` are the processes that run."""

    settings: Settings
    variables: Mapping[str, str]
    lanes: dict[str, LaneProcess] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Before every topic, group and key."""
        return self.settings.kafka.topic_prefix

    def settled(self) -> int:
        """Return how many records all lanes together have settled."""
        figures = [lane.figures() for lane in self.lanes.values()]
        return sum(found.settled for found in figures if found is not None)

    def wait_without_lag(self) -> None:
        """Return once nothing is left to do, seen twice: one lane's output is another one's lag."""
        deadline = time.monotonic() + _SETTLED_SECONDS
        quiet = 0
        while quiet < 2:
            if time.monotonic() > deadline:
                raise BenchFailedError(f"lanes still lag after {_SETTLED_SECONDS:g} s")
            for lane in self.lanes.values():
                lane.check()
            lag = read_lag(self.settings.kafka).by_lane()
            behind = sum(one.records for one in lag if one.lane in self.lanes)
            quiet = 0 if behind else quiet + 1
            time.sleep(_POLL_SECONDS)


@contextmanager
def live_deployment(
    bench: Workbench, prefix: str, *lanes: str, extra: Mapping[str, str] | None = None
) -> Iterator[LiveDeployment]:
    """Give a deployment with spaces registered and `lanes` ready; they end with the block.

    `extra` are more variables of the lanes' environment.
    """
    variables = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": bench.bootstrap_servers,
        "FRESHET_KAFKA__TOPIC_PREFIX": prefix,
        "FRESHET_KAFKA__PARTITIONS": str(PARTITIONS),
        "FRESHET_REDIS__URL": bench.redis_url,
        "FRESHET_REDIS__KEY_PREFIX": prefix,
        "FRESHET_ENCODE__SPACES_DIR": str(_fitted_spaces(bench)),
        "FRESHET_KNOWLEDGE__RECORDED_FILE": str(_answers(bench)),
        "FRESHET_LOG_LEVEL": "warning",
        **(extra or {}),
    }
    deployment = LiveDeployment(_settings(variables), variables)
    apply(deployment.settings.kafka)
    asyncio.run(create(deployment.settings, SPACE))
    with ExitStack() as running:
        for name in lanes:
            lane = LaneProcess(name, variables, log_file=bench.folder / f"{prefix}{name}.log")
            running.callback(lane.stop)
            deployment.lanes[name] = lane
        if lanes:
            bench.say(f"starting {', '.join(lanes)}")
            wait_until_ready(deployment.lanes, timeout_seconds=_READY_SECONDS)
        yield deployment


def _settings(variables: Mapping[str, str]) -> Settings:
    """Return what a process with these variables would load."""
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=variables["FRESHET_KAFKA__BOOTSTRAP_SERVERS"],
            topic_prefix=variables["FRESHET_KAFKA__TOPIC_PREFIX"],
            partitions=PARTITIONS,
        ),
        redis=RedisSettings(
            url=variables["FRESHET_REDIS__URL"],
            key_prefix=variables["FRESHET_REDIS__KEY_PREFIX"],
        ),
        encode=EncodeSettings(spaces_dir=Path(variables["FRESHET_ENCODE__SPACES_DIR"])),
        knowledge=KnowledgeSettings(
            recorded_file=Path(variables["FRESHET_KNOWLEDGE__RECORDED_FILE"])
        ),
    )


def _fitted_spaces(bench: Workbench) -> Path:
    """Return the spaces directory; fitted at the first call, by the command an operator uses."""
    directory = bench.folder / "spaces"
    if directory.exists():
        return directory
    bench.say(f"fitting {SPACE} on {_FIT_ITEMS} films")
    catalog, answers = bench.folder / "fit-catalog.jsonl", bench.folder / "fit-answers.jsonl"
    write_catalogue(catalog, _FIT_ITEMS)
    write_answers(answers, _FIT_ITEMS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "streams.cli.main", "spaces", "fit", SPACE),
            *("--catalog", str(catalog), "--knowledge", str(answers)),
        ],
        cwd=REPOSITORY,
        env=environment({"FRESHET_ENCODE__SPACES_DIR": str(directory)}),
        capture_output=True,
        text=True,
        timeout=_FIT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchFailedError(f"freshet spaces fit ended with {done.returncode}:\n{done.stderr}")
    return directory


def _answers(bench: Workbench) -> Path:
    path = bench.folder / "answers.jsonl"
    if not path.exists():
        write_answers(path, 2_000)
    return path
