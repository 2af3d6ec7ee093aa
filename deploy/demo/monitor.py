"""Keeps the board up to date: asks the lanes for their figures, the watchers for their counts."""

from collections.abc import Mapping

from deploy.demo.background import Background
from deploy.demo.board import Board
from deploy.demo.lane_processes import LaneFigures, LaneProcess
from deploy.demo.new_users import NewUsers
from deploy.demo.watch import Watcher

_EVERY_SECONDS = 2.0


class Monitor(Background):
    """A thread, as a context manager; a lane that does not answer is shown as it was."""

    def __init__(
        self,
        board: Board,
        lanes: Mapping[str, LaneProcess],
        watcher: Watcher,
        new_users: NewUsers,
    ) -> None:
        super().__init__("monitor")
        self._board = board
        self._new_users = new_users
        self._lanes = lanes
        self._watcher = watcher

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            found: dict[str, tuple[str, LaneFigures | None]] = {
                name: (lane.waits_for() or "ready", lane.figures())
                for name, lane in self._lanes.items()
            }
            self._board.count(self._watcher.live(), found, self._new_users.rankable_ms)
