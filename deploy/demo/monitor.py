"""Keeps the board up to date: asks the lanes for their figures, the watchers for their counts."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from deploy.demo.board import Board
from deploy.demo.lane_processes import LaneFigures, LaneProcess
from deploy.demo.new_users import NewUsers
from deploy.demo.watch import Watcher

_EVERY_SECONDS = 2.0
_JOIN_SECONDS = 5.0


class Monitor:
    """A thread, as a context manager; a lane that does not answer is shown as it was."""

    def __init__(
        self,
        board: Board,
        lanes: Mapping[str, LaneProcess],
        watcher: Watcher,
        new_users: NewUsers,
    ) -> None:
        self._board = board
        self._new_users = new_users
        self._lanes = lanes
        self._watcher = watcher
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(_JOIN_SECONDS)

    def _follow(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            found: dict[str, tuple[str, LaneFigures | None]] = {
                name: (lane.waits_for() or "ready", lane.figures())
                for name, lane in self._lanes.items()
            }
            self._board.count(self._watcher.live(), found, self._new_users.rankable_ms)
