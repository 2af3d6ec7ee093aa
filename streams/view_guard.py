"""The view guard: keeps a lane from building on a Redis that is behind Kafka, and mends it.

Redis may come back empty, or from an old snapshot, or another process may answer in its place. Each
lane looks once a second: the run id of the Redis that answers, and whether every partition of the
view was verified in that very process. Until then the lane holds, and its fenced client refuses
every connection. The encode lane owns the view: it verifies its partitions, or rebuilds them from
the compacted topics. A lane that writes Redis then reads its input again from its checkpoint.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from schemas.errors import Transient

log = structlog.get_logger("freshet.view")

LOOK_SECONDS = 1.0
QUIET_SECONDS = 30.0
HOLD = "redis"

Partitions = dict[tuple[str, int], int]


class ViewPort(Protocol):
    """What Redis says about the view."""

    async def run_id(self) -> str:
        """Return the run id of the Redis that answers."""

    async def verified(self) -> dict[int, str]:
        """Return partition -> run id that it was verified in."""

    async def verify(self, partition: int, run_id: str) -> None:
        """Note a partition as whole."""

    async def is_stamped(self) -> bool:
        """Return whether the view as a whole is declared whole."""

    async def stamp(self) -> None:
        """Declare the view whole."""

    async def checkpoints(self) -> Partitions:
        """Return the lane's checkpoints."""

    async def store_checkpoints(self, offsets: Partitions) -> None:
        """Store checkpoints."""

    def admit(self, run_id: str | None) -> None:
        """Let fenced clients talk to this Redis process only; None for none at all."""


class HoldPort(Protocol):
    """The pipeline, as far as holding goes."""

    def hold(self, name: str, detail: str, *, freeze: bool = False) -> None:
        """Stop admitting and handling; with `freeze`, storing checkpoints too."""

    def unhold(self, name: str) -> None:
        """Go on."""

    async def quiet(self) -> None:
        """Wait until nothing is being handled or stored."""

    def settled_ends(self) -> Partitions:
        """Return one past the greatest settled offset of each partition, committed or not."""

    def trust(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Store checkpoints of these partitions only."""


@dataclass(frozen=True, slots=True)
class GuardedLane:
    """What the guard must know of its lane."""

    name: str
    view_partitions: int
    assignment: Callable[[], set[tuple[str, int]]]
    committed: Callable[[set[tuple[str, int]]], Awaitable[Partitions]]
    replay: Callable[[tuple[str, int], int | None, int], Awaitable[int]] | None
    """Handles the records of a partition from an offset (None: the earliest) up to another."""
    rebuild: Callable[[set[int]], Awaitable[int]] | None = None
    """Puts spaces, aliases and the partitions' entities back from the compacted topics; the owner
    of the view only."""


class ViewGuard:
    """Runs beside a lane's pipeline."""

    def __init__(self, lane: GuardedLane, view: ViewPort, pipeline: HoldPort) -> None:
        self._lane = lane
        self._view = view
        self._pipeline = pipeline
        self._run_id: str | None = None
        self._compared: frozenset[tuple[str, int]] = frozenset()
        self._forget("not verified yet")

    async def watch(self) -> None:
        """Look once a second until cancelled."""
        while True:
            try:
                await self.look()
            except Transient as error:
                self._close(str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Compare Redis with Kafka once; verify, rebuild, hold or go on. Raises Transient."""
        run_id = await self._view.run_id()
        if run_id != self._run_id:
            self._forget("restarted: the view must be verified")
            self._run_id = run_id
        assigned = self._lane.assignment()
        verified = await self._view.verified()
        if self._lane.rebuild is not None:
            lost = {tp for tp in assigned if verified.get(tp[1]) != run_id}
            if lost:
                await self._restore(lost, run_id)
                verified = await self._view.verified()
        missing = [p for p in range(self._lane.view_partitions) if verified.get(p) != run_id]
        if missing:
            self._forget(f"rebuilding: partitions {missing} of the view are not verified")
            return
        if not await self._view.is_stamped():
            if self._lane.rebuild is None:
                self._forget("rebuilding: the view is not whole")
                return
            self._view.admit(run_id)
            await self._view.stamp()
        if self._lane.rebuild is None and self._lane.replay is not None:
            await self._catch_up(assigned, run_id)
        self._compared = frozenset(assigned)
        self._pipeline.trust(self._compared)
        self._view.admit(run_id)
        self._pipeline.unhold(HOLD)

    def _close(self, detail: str) -> None:
        """Let nobody write until the next look."""
        self._view.admit(None)
        self._pipeline.hold(HOLD, detail, freeze=True)

    def _forget(self, detail: str) -> None:
        """The same, because it may be another Redis: what was compared with it counts no more."""
        self._compared = frozenset()
        self._pipeline.trust(self._compared)
        self._close(detail)

    async def _restore(self, lost: set[tuple[str, int]], run_id: str) -> None:
        self._close(f"rebuilding: partitions {sorted(p for _, p in lost)}")
        await self._quiet()
        self._view.admit(run_id)
        checkpoints = await self._view.checkpoints()
        ends = await self._ends(lost)
        behind = {tp for tp in lost if tp not in checkpoints or checkpoints[tp] < ends[tp]}
        if self._lane.rebuild is not None:
            # Of no partition, too: spaces and aliases may be those of an older Redis.
            entities = await self._lane.rebuild({partition for _, partition in behind})
            log.info("view_rebuilt", partitions=sorted(p for _, p in behind), entities=entities)
            # The owner reads documents while it replays, and these partitions are whole enough:
            # what is missing is exactly what the replay brings.
            await self._view.stamp()
        await self._replay(behind, checkpoints, ends)
        for _, partition in sorted(lost):
            await self._view.verify(partition, run_id)

    async def _catch_up(self, assigned: set[tuple[str, int]], run_id: str) -> None:
        fresh = assigned - self._compared
        if not fresh:
            return
        # Quiet before comparing: a handler that still ends may have written to the Redis before.
        self._pipeline.hold(HOLD, f"comparing checkpoints: {sorted(fresh)}", freeze=True)
        await self._quiet()
        self._view.admit(run_id)
        checkpoints = await self._view.checkpoints()
        ends = await self._ends(fresh)
        behind = {tp for tp in fresh if checkpoints.get(tp, 0) < ends[tp]}
        if behind:
            self._pipeline.hold(HOLD, f"reading again: {sorted(behind)}", freeze=True)
            await self._replay(behind, checkpoints, ends)

    async def _ends(self, partitions: set[tuple[str, int]]) -> Partitions:
        """Return up to where effects may be missing: what was committed, or settled since."""
        committed = await self._lane.committed(partitions)
        settled = self._pipeline.settled_ends()
        return {tp: max(committed.get(tp, 0), settled.get(tp, 0)) for tp in partitions}

    async def _replay(
        self, behind: set[tuple[str, int]], checkpoints: Partitions, ends: Partitions
    ) -> None:
        for tp in sorted(behind):
            end = ends[tp]
            if self._lane.replay is not None and end:
                records = await self._lane.replay(tp, checkpoints.get(tp), end)
                log.info("input_read_again", topic=tp[0], partition=tp[1], records=records)
                await self._view.store_checkpoints({tp: end})

    async def _quiet(self) -> None:
        # Handlers end by themselves: their calls are bounded, and their Redis refuses them.
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await self._pipeline.quiet()
        except TimeoutError as error:
            raise Transient("redis", f"handlers still run after {QUIET_SECONDS:g} s") from error
