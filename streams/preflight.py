"""Before a lane joins its group: Kafka and Redis answer, its topics are there and right.

Waits for what is unreachable, saying so once and on /readyz; refuses what is wrong.
"""

import time
from collections.abc import Callable

import structlog

from schemas.errors import Transient

log = structlog.get_logger("freshet.lane")

RETRY_SECONDS = 1.0

Check = Callable[[], None]


def wait_until_reachable(checks: dict[str, Check], waiting: dict[str, str]) -> None:
    """Run every check until all pass; `waiting` always says what the start still waits for.

    A check raises Transient to be tried again; anything else (ConfigurationError) goes through.
    """
    waiting.update(dict.fromkeys(checks, "not reached yet"))
    said: set[str] = set()
    for name, check in checks.items():
        while True:
            try:
                check()
            except Transient as error:
                waiting[name] = str(error)
                if name not in said:
                    log.warning("waiting_for_dependency", dependency=name, detail=str(error))
                    said.add(name)
                time.sleep(RETRY_SECONDS)
            else:
                if name in said:
                    log.info("dependency_reached", dependency=name)
                waiting.pop(name)
                break
