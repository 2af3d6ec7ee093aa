"""Child processes with their output side by side: stopped together, none of them restarted."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_COLOURS = (36, 33, 35, 32, 34, 31)
_LONGEST_LINE = 1024 * 1024
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run; `environment` comes on top of this process's."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Died:
    """A child that ended by itself."""

    name: str
    exit_code: int


async def run_children(children: Sequence[Child], grace_seconds: float) -> Died | None:
    """Run the children until SIGTERM or SIGINT; return None, or the child that ended first.

    Then the others get SIGTERM, and SIGKILL when they overstay their grace period.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    width = max(len(child.name) for child in children)
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        async with asyncio.TaskGroup() as group:
            try:
                for index, child in enumerate(children):
                    process = await _start(child)
                    processes[child.name] = process
                    prefix = _prefix(child.name.ljust(width), index)
                    group.create_task(_relay(process, prefix))
                return await _first_to_end(processes, stop)
            finally:
                await _stop(processes, grace_seconds)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _start(child: Child) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *child.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **child.environment},
        limit=_LONGEST_LINE,
        # Ctrl-C goes to the whole process group: without this, children would get it twice.
        start_new_session=True,
    )


async def _first_to_end(
    processes: Mapping[str, asyncio.subprocess.Process], stop: asyncio.Event
) -> Died | None:
    stopping = asyncio.create_task(stop.wait())
    waits = {asyncio.create_task(process.wait()): name for name, process in processes.items()}
    try:
        done, _ = await asyncio.wait({stopping, *waits}, return_when=asyncio.FIRST_COMPLETED)
        # A child that got the terminal's signal by itself ends at the same time as we are told.
        if stopping in done:
            return None
        first = next(task for task in waits if task in done)
        return Died(waits[first], first.result())
    finally:
        for task in (stopping, *waits):
            task.cancel()


async def _stop(processes: Mapping[str, asyncio.subprocess.Process], grace_seconds: float) -> None:
    running = [process for process in processes.values() if process.returncode is None]
    for process in running:
        process.terminate()
    try:
        async with asyncio.timeout(grace_seconds + _KILL_SECONDS):
            for process in running:
                await process.wait()
    except TimeoutError:
        for process in running:
            if process.returncode is None:
                process.kill()


async def _relay(process: asyncio.subprocess.Process, prefix: str) -> None:
    """Print the child's lines until it closes its output."""
    stream = process.stdout
    if stream is None:
        return
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                _print(prefix, error.partial)
            return
        except asyncio.LimitOverrunError as error:
            line = await stream.readexactly(error.consumed)
        _print(prefix, line)


def _print(prefix: str, line: bytes) -> None:
    sys.stdout.write(f"{prefix} {line.decode('utf-8', 'replace').rstrip()}\n")
    sys.stdout.flush()


def _prefix(name: str, index: int) -> str:
    if not sys.stdout.isatty():
        return f"{name} |"
    return f"\x1b[{_COLOURS[index % len(_COLOURS)]}m{name} |\x1b[0m"
