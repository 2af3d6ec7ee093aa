"""`freshet lane` and `freshet up`: run one lane in this process, or all of them as children."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings

if TYPE_CHECKING:
    from streams.cli.children import Child
    from streams.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: freshet lane items; after a flood: freshet lane resume items")(
        lane
    )
    app.command(epilog="Example: freshet up --lane items --lane encode")(up)


def lane(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME | resume NAME",
            help="items, knowledge, knowledge-backlog, encode, behaviour or encode.<space>.",
        ),
    ],
) -> None:
    """Run a lane until SIGTERM, or let one go on that paused itself in a flood of invalid input."""
    from streams.topology import lane_inputs

    match words:
        case [name]:
            lane_inputs(name)
            _run(name)
        case ["resume", name]:
            lane_inputs(name)
            _resume(name)
        case _:
            raise typer.BadParameter("expected: freshet lane NAME, or: freshet lane resume NAME")


def up(
    lane: Annotated[
        list[str] | None,
        typer.Option("--lane", help="Only this lane (repeatable); all of them by default."),
    ] = None,
) -> None:
    """Run all lanes, each in a process of its own, until Ctrl-C or SIGTERM.

    Those of spaces that backfill or have lanes of their own are among them. Logs come with the
    lane's name in front. If a lane ends by itself the others are stopped, and the exit code is 1.
    """
    import asyncio

    from streams.cli.children import run_children
    from streams.topology import lane_inputs

    for name in lane or ():
        lane_inputs(name)
    settings = load_settings()
    names = list(dict.fromkeys(lane or asyncio.run(_deployed(settings))))
    died = asyncio.run(run_children(_children(names, settings), settings.lane.grace_seconds))
    if died is not None:
        fail(f"lane {died.name} ended by itself with exit code {died.exit_code}; all lanes stopped")
        exit_with(FAILED)


def _run(name: str) -> None:
    # Before numpy is imported. A lane multiplies small matrices beside other lanes: with a thread a
    # core OpenBLAS spins more than it multiplies (user vectors took 5 to 10 times the CPU time).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from streams.logs import configure
    from streams.process_exit import leave
    from streams.run_lane import run_lane

    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    code = run_lane(name, settings)
    # Not sys.exit: it would wait for an encoder batch that a drain has given up, and whose result
    # nobody takes any more.
    leave(code)


async def _deployed(settings: "Settings") -> tuple[str, ...]:
    from schemas.errors import Transient
    from streams.redis_clients import open_redis
    from streams.topology import deployed_lanes
    from workers.live.space_registry import SpaceRegistry

    try:
        async with open_redis(settings.redis) as redis:
            registry = SpaceRegistry(redis.client, redis.keys)
            return deployed_lanes((await registry.spaces()).values())
    except Transient as error:
        # The lanes wait for Redis; which spaces there are cannot be known before.
        fail(f"{error}; starting without the lanes of further spaces")
        return deployed_lanes(())


def _resume(name: str) -> None:
    import asyncio

    was = asyncio.run(_take_pause_away(name, load_settings()))
    if was is None:
        typer.echo(f"lane {name} was not paused")
    else:
        typer.echo(f"lane {name} goes on; it was paused: {was}")


async def _take_pause_away(name: str, settings: "Settings") -> str | None:
    from streams.redis_clients import open_redis
    from workers.live.space_registry import SpaceRegistry

    async with open_redis(settings.redis) as redis:
        registry = SpaceRegistry(redis.client, redis.keys)
        detail = await registry.paused(name)
        await registry.resume(name)
        return detail


def _children(names: list[str], settings: "Settings") -> "list[Child]":
    import sys

    from streams.cli.children import Child

    port = settings.web.port
    return [
        Child(
            name,
            (sys.executable, "-m", "streams.cli.main", "lane", name),
            # One port cannot serve them all: they get consecutive ones.
            {"FRESHET_WEB__PORT": str(port + index)} if port else {},
        )
        for index, name in enumerate(names)
    ]
