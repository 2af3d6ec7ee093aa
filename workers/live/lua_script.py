"""Lua scripts: many entities in one EVALSHA on a primary, one entity a call on a cluster.

A script takes its entities one after the other from KEYS and ARGV and answers once for each, in
order: with an integer, or with a list of several values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from itertools import islice
from typing import Generic, TypeVar

from redis.exceptions import NoScriptError

from workers.live.connection import AnyRedis, Command, forget_demoted, translated

ENTITIES_PER_CALL = 256
"""A script blocks Redis while it runs: at this size about a millisecond."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The keys and arguments of one entity in a script call."""

    keys: tuple[str, ...]
    arguments: tuple[bytes | int, ...]


Answer = TypeVar("Answer")


class LuaScript(Generic[Answer]):
    """A script that lies next to this module, run over batches of units.

    `Answer` is what it answers for a unit: ours to know, Redis declares nothing. A list of values
    arrives as a list, of which the tuple in the type says what stands where.

    Args:
        file_name: of the script.
        units_per_call: how many units may share a call, and so block Redis together.
    """

    def __init__(self, file_name: str, *, units_per_call: int = ENTITIES_PER_CALL) -> None:
        self._units_per_call = units_per_call
        self._source = files("workers.live").joinpath(file_name).read_text("ascii")
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self,
        redis: AnyRedis,
        units: Sequence[Unit],
        *,
        cluster: bool,
        shared: Sequence[bytes | int] = (),
    ) -> list[Answer]:
        """Return the script's answer for each unit, in order: one round trip; raises Transient.

        `shared` arguments come before those of the units in every call. The units of one call
        change together; calls of a batch do not. A Redis that does not know the script (it
        restarted) costs two round trips more.
        """
        commands = [
            self._command(chunk, shared)
            for chunk in _chunks(units, 1 if cluster else self._units_per_call)
        ]
        with translated():
            replies: list[list[Answer] | Exception] = await _execute(redis, commands)
            unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                await redis.script_load(self._source)
                again: list[list[Answer] | Exception] = await _execute(
                    redis, [commands[n] for n in unknown]
                )
                for n, reply in zip(unknown, again, strict=True):
                    replies[n] = reply
            for reply in replies:
                if isinstance(reply, Exception):
                    await forget_demoted(redis, reply)
                    raise reply
        return [answer for reply in replies if not isinstance(reply, Exception) for answer in reply]

    def _command(self, units: Sequence[Unit], shared: Sequence[bytes | int]) -> Command:
        keys = [key for unit in units for key in unit.keys]
        arguments = [argument for unit in units for argument in unit.arguments]
        return ("EVALSHA", self._sha, len(keys), *keys, *shared, *arguments)


async def _execute(redis: AnyRedis, commands: Sequence[Command]) -> list[list[Answer] | Exception]:
    if not commands:
        return []
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[list[Answer] | Exception] = await pipeline.execute(raise_on_error=False)
    return replies


def _chunks(units: Iterable[Unit], size: int) -> Iterable[list[Unit]]:
    remaining = iter(units)
    while chunk := list(islice(remaining, size)):
        yield chunk
