"""The last resorts: leave the process when upstream hangs or nothing moves, with known exit codes.

A stop during a broker outage hangs inside aiokafka for as long as the outage lasts, and one pump
crash in four hangs inside Faust (seen on a real broker), so a thread outside the loop decides.
"""

import threading
import time
from collections.abc import Callable

from streams.process_exit import leave

EXIT_GRACE_OVER = 75  # EX_TEMPFAIL: the drain was done or abandoned, Kafka redelivers the rest
EXIT_STALLED = 70  # EX_SOFTWARE: lag, nothing settles and no dependency is to blame

_LOOK_SECONDS = 0.25


class HardExit:
    """Ends the process `grace_seconds` after `is_stopping` holds, unless it ended by itself."""

    def __init__(self, is_stopping: Callable[[], bool], grace_seconds: float) -> None:
        self._is_stopping = is_stopping
        self._grace_seconds = grace_seconds

    def start(self) -> None:
        """Watch from a daemon thread, so that a clean exit is never held up."""
        threading.Thread(target=self._watch, name="hard-exit", daemon=True).start()

    def _watch(self) -> None:
        while not self._is_stopping():
            time.sleep(_LOOK_SECONDS)
        time.sleep(self._grace_seconds)
        leave(EXIT_GRACE_OVER)
