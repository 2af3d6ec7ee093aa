"""Runs a lane's app as a Faust worker in this process until it is told to stop."""

import asyncio
import gc

import faust
from mode.exceptions import MaxRestartsExceeded


def run_worker(app: faust.App) -> int:
    """Return the exit code: 0 after a stop that was asked for, 1 after a crash."""
    _quiet_collector()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(
        app, loop=loop, override_logging=False, redirect_stdouts=False, quiet=True
    )
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except MaxRestartsExceeded:
        return 1
    return 0


def _quiet_collector() -> None:
    """Let the garbage collector pass over the program itself, and look less often at the rest.

    A lane holds thousands of records that are no garbage; with Python's defaults the search among
    them, and among all that was ever imported, takes a fifth of a busy lane's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
