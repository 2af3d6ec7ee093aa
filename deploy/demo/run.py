"""One run of the demo from an empty folder to the result: what starts, in which order, how it ends.

Owns the order and the bounds of every wait. Whatever was started is stopped on every way out, but
for a run that is kept.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from deploy.demo import kept
from deploy.demo.account import Account, reckon
from deploy.demo.board import Board
from deploy.demo.example_user import example_user
from deploy.demo.films import read_season
from deploy.demo.interrupts import Interrupts
from deploy.demo.lane_processes import LaneProcess, wait_until_ready
from deploy.demo.lane_settings import encode_variables, lane_variables, settings_of
from deploy.demo.language_model import LanguageModel
from deploy.demo.measured import UsersSeen, measured
from deploy.demo.monitor import Monitor
from deploy.demo.observed_model import ObservedModel
from deploy.demo.options import LiveSpace, Llm, Options
from deploy.demo.plans import FeedShape
from deploy.demo.replay import Replay
from deploy.demo.schedule import Schedule, build_schedule
from deploy.demo.seen import Seen, open_reader, seeing
from deploy.demo.spaces import RAW_SPACE, SpaceProcess, Step
from deploy.demo.summary import Result
from deploy.demo.user_questions import UserQuestions
from deploy.local.stack import LocalStack
from streams import topic_admin
from streams.lag import LagReader, lag_reader
from streams.settings import KafkaSettings, Settings
from streams.spaces_admin import create
from streams.topology import LANES
from workers.live.live_vectors import LiveVectors

_SERVER_DATA = ("kafka", "redis")

_SPACES_LOG = "spaces.log"
_RAW_SPACE_SECONDS = 90.0
_TRAIN_SECONDS = 900.0
_LIVE_SPACE_SECONDS = 120.0
_READY_SECONDS = 90.0
_MODEL_SECONDS = 300.0
_LOAD_SECONDS = 240.0
_IDLE_SECONDS = 15.0
_SETTLE_SECONDS = 60.0
_SETTLE_WRITING_SECONDS = 240.0
"""With a real language model, of which the last events ask more than it can in the summer."""

_POLL_SECONDS = 0.1
_RECKON_AGAIN_SECONDS = 1.0


class DemoRun:
    """A run; `board` tells what it is doing. `run` may be called once.

    After a run that is kept, `example_user` is one worth looking at.

    It raises ServerFailedError (something did not start, or ended by itself; with its log),
    Transient and ConfigurationError as the parts do (a language model that is not installed among
    them, before anything starts), and Interrupted.
    """

    def __init__(self, options: Options, interrupts: Interrupts) -> None:
        self._options = options
        self._interrupts = interrupts
        whole = read_season()
        season = whole if options.films is None else whole.smaller(options.films)
        shape = FeedShape().scaled(len(season.films) / len(whole.films))
        self._schedule = build_schedule(season, seed=options.seed, shape=shape)
        self.titles = {film.item_id: film.title for film in season.films}
        self.board = Board(self.titles)
        self.example_user = ""
        self._lanes: dict[str, LaneProcess] = {}
        self._model: LanguageModel | None = None

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
            self._train_space(root)
            self._start_model(running, root)
            stack, settings = self._start_servers(running, root)
            variables = lane_variables(root, stack, self._model)
            self._start_lanes(running, root, variables)
            seen = measuring.enter_context(
                seeing(stack.state.redis_url, board.saw, knowledge_is_sure=self._model is None)
            )
            measuring.enter_context(Monitor(board, self._lanes, seen.films, seen.users))
            wait_until_ready(
                self._lanes,
                timeout_seconds=_READY_SECONDS,
                on_wait=lambda waiting: board.say("waiting for " + ", ".join(waiting)),
            )
            asked = UserQuestions.of(schedule)
            replay = measuring.enter_context(
                Replay(
                    settings.kafka.bootstrap_servers,
                    seen.films,
                    seen.users,
                    asked,
                    on_sent=board.sent,
                    check=lambda: self._check(seen),
                )
            )
            lag = measuring.enter_context(lag_reader(settings.kafka))
            self._await_model(seen)
            board.enter("Loading the back catalogue", to_send=len(schedule.back_catalogue))
            with ObservedModel(self._model) as observed:
                replay.load(schedule.back_catalogue)
                self._await_quiet(seen, lag, _LOAD_SECONDS)
            board.enter("Making the space live", self._options.space)
            self._make_space_live(root, variables, seen)
            # A reader would hold on to the raw space for up to half a minute; a new one does not.
            reader = measuring.enter_context(open_reader(stack.state.redis_url))
            seen.read_from(reader)
            board.enter("Loading the ratings until then", to_send=len(schedule.history))
            replay.load(schedule.history)
            self._await_quiet(seen, lag, _LOAD_SECONDS)
            board.enter("Replaying the summer", to_send=len(schedule.summer))
            readings = replay.play(
                schedule.summer, speed=self._options.speed, reader=reader, known=schedule.history
            )
            board.enter("Waiting for the last vectors")
            writes = self._model is not None
            self._await_quiet(seen, lag, _SETTLE_WRITING_SECONDS if writes else _SETTLE_SECONDS)
            board.enter("Reckoning up")
            account = self._reckon(seen, reader, settings.kafka)
            if self._options.keep:
                with self._interrupts.shielded():
                    self.example_user = asyncio.run(example_user(schedule, settings.redis))
            return measured(
                schedule,
                account,
                seen.films.sightings,
                UsersSeen(asked, readings, seen.users.rankable_ms),
                {name: lane.figures() for name, lane in self._lanes.items()},
                reader,
                space=self._options.space,
                spaces_dir=root / "spaces",
                seconds=board.elapsed_seconds,
                model=observed.figures,
            )

    # ---- the steps ---------------------------------------------------------------------------

    def _train_space(self, root: Path) -> None:
        """Have the trained space at hand, if one is wanted: while nothing else needs the cores."""
        if self._options.space is LiveSpace.PARTS_PCA:
            return
        self.board.enter("Training the space", "only the first time")
        self._run_step(Step.TRAINED, root, encode_variables(root), _TRAIN_SECONDS)

    def _start_model(self, running: ExitStack, root: Path) -> None:
        """Start a real language model, if one is wanted; it loads while other things start."""
        if self._options.llm is Llm.RECORDED:
            return
        self.board.enter("Looking for the language model")
        with self._interrupts.shielded():
            model = LanguageModel(root / "llm", detached=self._options.keep)
            self._model = running.enter_context(model)

    def _await_model(self, seen: Seen) -> None:
        if self._model is None:
            return
        self.board.enter("Waiting for the language model", self._model.model)
        self._model.await_ready(timeout_seconds=_MODEL_SECONDS, check=lambda: self._check(seen))

    def _start_servers(self, running: ExitStack, root: Path) -> tuple[LocalStack, Settings]:
        """Return Kafka and Redis, with topics and the raw space."""
        self.board.enter("Starting Kafka and Redis")
        with ExitStack() as meanwhile:
            with self._interrupts.shielded():
                raw_space = meanwhile.enter_context(
                    self._step(Step.RAW, root, encode_variables(root))
                )
            stack = LocalStack(root, detached=self._options.keep)
            running.callback(stack.stop)
            stack.start()
            settings = settings_of(stack)
            topic_admin.apply(settings.kafka)
            self.board.say("making the raw space")
            raw_space.wait(timeout_seconds=_RAW_SPACE_SECONDS)
            with self._interrupts.shielded():
                asyncio.run(create(settings, RAW_SPACE))
        return stack, settings

    def _make_space_live(self, root: Path, variables: Mapping[str, str], seen: Seen) -> None:
        check = partial(self._check, seen)
        self._run_step(Step.LIVE, root, variables, _LIVE_SPACE_SECONDS, check)

    def _run_step(
        self,
        step: Step,
        root: Path,
        variables: Mapping[str, str],
        timeout_seconds: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        with ExitStack() as running:
            with self._interrupts.shielded():
                process = running.enter_context(self._step(step, root, variables))
            process.wait(timeout_seconds=timeout_seconds, check=check, say=self.board.say)

    def _step(self, step: Step, root: Path, variables: Mapping[str, str]) -> SpaceProcess:
        space = self._options.space
        return SpaceProcess(step, space, variables, log_file=root / _SPACES_LOG)

    def _start_lanes(self, running: ExitStack, root: Path, variables: Mapping[str, str]) -> None:
        self.board.enter("Starting the lanes")
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
            pids = {name: lane.pid for name, lane in self._lanes.items()}
            pids |= {} if self._model is None else {kept.MODEL: self._model.pid}
            kept.remember(root, pids, variables)
            running.callback(kept.forget, root)

    def _stop_lanes(self) -> None:
        # Side by side: each of them drains and leaves its group.
        with ThreadPoolExecutor(max(1, len(self._lanes))) as stopping:
            list(stopping.map(LaneProcess.stop, self._lanes.values()))

    def _check(self, seen: Seen) -> None:
        seen.check()
        for lane in self._lanes.values():
            lane.check()

    def _await_quiet(self, seen: Seen, lag: LagReader, timeout_seconds: float) -> None:
        """Return when all that is expected was seen and every lane has settled everything.

        Or when the time is up, or no lane has had anything to do for a while: what is missing then
        does not come, say because its answer was refused. The reckoning tells.
        """
        now = busy_at = time.monotonic()
        deadline = now + timeout_seconds
        while now < deadline and now - busy_at < _IDLE_SECONDS:
            if any(lane.records for lane in lag.read(tuple(LANES)).by_lane()):
                busy_at = now
            elif not seen.pending:
                return
            self._check(seen)
            time.sleep(_POLL_SECONDS)
            now = time.monotonic()

    def _reckon(self, seen: Seen, reader: LiveVectors, kafka: KafkaSettings) -> Account:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            self._check(seen)
            account = reckon(self._schedule, seen.films, reader, kafka)
            if not account.unaccounted or time.monotonic() > deadline:
                return account
            self.board.say(account.unaccounted[0])
            time.sleep(_RECKON_AGAIN_SECONDS)


def _emptied(root: Path) -> Path:
    """Return the folder without what an earlier run left in it; only what a run makes goes."""
    root = root.absolute()
    _delete(root, (*_SERVER_DATA, "spaces", "logs", "llm"))
    (root / _SPACES_LOG).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    return root


def _delete(root: Path, folders: Iterable[str]) -> None:
    for name in folders:
        shutil.rmtree(root / name, ignore_errors=True)
