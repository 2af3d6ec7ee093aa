"""One run of the demo from an empty folder to the result: what starts, in which order, how it ends.

Owns the order and the bounds of every wait. Whatever was started is stopped on every way out, but
for a run that is kept.
"""

import asyncio
import random
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from deploy.demo import kept
from deploy.demo.account import Account, reckon
from deploy.demo.board import Board
from deploy.demo.films import KNOWLEDGE_FILE, read_season
from deploy.demo.interrupts import Interrupts
from deploy.demo.lane_processes import LaneProcess, wait_until_ready
from deploy.demo.measured import measured
from deploy.demo.monitor import Monitor
from deploy.demo.plans import FeedShape
from deploy.demo.replay import Replay
from deploy.demo.schedule import Schedule, build_schedule
from deploy.demo.spaces import SPACE, SpaceFit
from deploy.demo.summary import Result
from deploy.demo.watch import Watcher
from deploy.local.stack import LocalStack
from streams import topic_admin
from streams.lag import LagReader, lag_reader
from streams.settings import EncodeSettings, KafkaSettings, RedisSettings, Settings
from streams.topology import LANES
from workers.live.live_vectors import LiveVectors

PARTITIONS = 4

FIT_FILMS = 600
"""A sample, because a fit on all 1,502 takes a minute; it ranks new films nearly as well."""
FIT_SEED = 2013

_SERVER_DATA = ("kafka", "redis")

_FIT_SECONDS = 180.0
_READY_SECONDS = 90.0
_LOAD_SECONDS = 240.0
_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_RECKON_AGAIN_SECONDS = 1.0
_READER_SECONDS = 5.0
"""Longer than a ranker would wait: on a busy machine a late answer beats none."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `films` None for all of them, `speed` seconds of the summer a second."""

    root: Path
    seed: int
    speed: float
    films: int | None
    keep: bool


class DemoRun:
    """A run; `board` tells what it is doing. `run` may be called once.

    It raises ServerFailedError (something did not start, or ended by itself; with its log),
    Transient and ConfigurationError as the parts do, and Interrupted.
    """

    def __init__(self, options: Options, interrupts: Interrupts) -> None:
        self._options = options
        self._interrupts = interrupts
        whole = read_season()
        season = whole if options.films is None else whole.smaller(options.films)
        shape = FeedShape().scaled(len(season.films) / len(whole.films))
        self._season = season
        self._schedule = build_schedule(season, seed=options.seed, shape=shape)
        self.titles = {film.item_id: film.title for film in season.films}
        self.board = Board(self.titles)
        self._lanes: dict[str, LaneProcess] = {}

    @property
    def schedule(self) -> Schedule:
        """The feed."""
        return self._schedule

    def run(self) -> Result:
        """Return what was measured; nothing runs any more then, unless the run is kept."""
        with ExitStack() as running:
            result = self._run(running)
            if self._options.keep:
                running.pop_all()
                return result
        # Nobody needs it any more, unlike the logs; after a failure all of it stays.
        _delete(self._options.root, _SERVER_DATA)
        return result

    def _run(self, running: ExitStack) -> Result:
        root, schedule, board = _emptied(self._options.root), self._schedule, self.board
        with ExitStack() as measuring:
            board.enter("Starting Kafka and Redis", "and fitting the space on the back catalogue")
            with self._interrupts.shielded():
                fit = measuring.enter_context(self._fit(root))
            stack = LocalStack(root, detached=self._options.keep)
            running.callback(stack.stop)
            stack.start()
            settings = self._settings(stack)
            topic_admin.apply(settings.kafka)
            board.enter("Fitting the space", f"on {FIT_FILMS} films of the back catalogue")
            fit.wait(timeout_seconds=_FIT_SECONDS)
            asyncio.run(_create_space(settings))
            board.enter("Starting the lanes")
            self._start_lanes(running, root, stack)
            url = stack.state.redis_url
            reader = measuring.enter_context(LiveVectors(url, timeout_seconds=_READER_SECONDS))
            watcher = measuring.enter_context(Watcher(reader, board.saw))
            measuring.enter_context(Monitor(board, self._lanes, watcher))
            wait_until_ready(
                self._lanes,
                timeout_seconds=_READY_SECONDS,
                on_wait=lambda waiting: board.say("waiting for " + ", ".join(waiting)),
            )
            replay = measuring.enter_context(
                Replay(
                    settings.kafka.bootstrap_servers,
                    watcher,
                    on_sent=board.sent,
                    check=lambda: self._check(watcher),
                )
            )
            lag = measuring.enter_context(lag_reader(settings.kafka))
            board.enter("Loading the back catalogue", to_send=len(schedule.back_catalogue))
            replay.load(schedule.back_catalogue)
            self._await_quiet(watcher, lag, _LOAD_SECONDS)
            board.enter("Replaying the summer", to_send=len(schedule.summer))
            replay.play(schedule.summer, speed=self._options.speed)
            board.enter("Waiting for the last vectors")
            self._await_quiet(watcher, lag, _SETTLE_SECONDS)
            board.enter("Reckoning up")
            account = self._reckon(watcher, reader, settings.kafka)
            return measured(
                schedule,
                account,
                watcher.sightings,
                {name: lane.figures() for name, lane in self._lanes.items()},
                reader,
                spaces_dir=root / "spaces",
                seconds=board.elapsed_seconds,
            )

    # ---- the steps ---------------------------------------------------------------------------

    def _fit(self, root: Path) -> SpaceFit:
        new = self._schedule.released_ms
        older = [film for film in self._season.films if film.item_id not in new]
        # Encoding is what takes the time, and the encode lane does it again for every film.
        sample = random.Random(FIT_SEED).sample(older, min(FIT_FILMS, len(older)))
        return SpaceFit(sample, _encode_variables(root), folder=root)

    def _settings(self, stack: LocalStack) -> Settings:
        return Settings(
            kafka=KafkaSettings(
                bootstrap_servers=stack.kafka.bootstrap_servers, partitions=PARTITIONS
            ),
            redis=RedisSettings(url=stack.redis.url),
            encode=EncodeSettings(spaces_dir=stack.root / "spaces"),
        )

    def _start_lanes(self, running: ExitStack, root: Path, stack: LocalStack) -> None:
        variables = {
            **stack.environment,
            **_encode_variables(root),
            "FRESHET_KAFKA__PARTITIONS": str(PARTITIONS),
            "FRESHET_KNOWLEDGE__WRITER": "recorded",
            "FRESHET_KNOWLEDGE__RECORDED_FILE": str(KNOWLEDGE_FILE),
        }
        logs = root / "logs"
        logs.mkdir(exist_ok=True)
        keep = self._options.keep
        running.callback(self._stop_lanes)
        for name in LANES:
            with self._interrupts.shielded():
                self._lanes[name] = LaneProcess(
                    name, variables, log_file=logs / f"{name}.log", detached=keep
                )
        if keep:
            kept.remember(root, {name: lane.pid for name, lane in self._lanes.items()}, variables)
            running.callback(kept.forget, root)

    def _stop_lanes(self) -> None:
        # Side by side: each of them drains and leaves its group.
        with ThreadPoolExecutor(max(1, len(self._lanes))) as stopping:
            list(stopping.map(LaneProcess.stop, self._lanes.values()))

    def _check(self, watcher: Watcher) -> None:
        watcher.check()
        for lane in self._lanes.values():
            lane.check()

    def _await_quiet(self, watcher: Watcher, lag: LagReader, timeout_seconds: float) -> None:
        """Return when all that is expected was seen and every lane has settled everything.

        Or when the time is up: the reckoning tells what is missing then.
        """
        deadline = time.monotonic() + timeout_seconds
        while watcher.pending or any(lane.records for lane in lag.read(tuple(LANES)).by_lane()):
            if time.monotonic() > deadline:
                return
            self._check(watcher)
            time.sleep(_POLL_SECONDS)

    def _reckon(self, watcher: Watcher, reader: LiveVectors, kafka: KafkaSettings) -> Account:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            self._check(watcher)
            account = reckon(self._schedule, watcher, reader, kafka)
            if not account.unaccounted or time.monotonic() > deadline:
                return account
            self.board.say(account.unaccounted[0])
            time.sleep(_RECKON_AGAIN_SECONDS)


async def _create_space(settings: Settings) -> None:
    from streams.spaces_admin import create

    await create(settings, SPACE)


def _emptied(root: Path) -> Path:
    """Return the folder without what an earlier run left in it; only what a run makes goes."""
    root = root.absolute()
    _delete(root, (*_SERVER_DATA, "spaces", "logs"))
    for name in ("fit.log", "catalog.jsonl", "knowledge.jsonl"):
        (root / name).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    return root


def _delete(root: Path, folders: Iterable[str]) -> None:
    for name in folders:
        shutil.rmtree(root / name, ignore_errors=True)


def _encode_variables(root: Path) -> Mapping[str, str]:
    return {
        "FRESHET_ENCODE__SPACES_DIR": str(root / "spaces"),
        # A developer's machine has a core to spare for the one lane that computes.
        "FRESHET_ENCODE__THREADS": "2",
        # Threads that spin while they wait for one another cost the other processes their cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
