"""The view guard: keeps a lane from building on a Redis that is behind Kafka, and mends it.

Redis may come back empty, or from an old snapshot, or another process may answer in its place. Each
lane looks once a second: the run id of the Redis that answers, and whether every partition of the
view was verified in that very process. Until then the lane holds, and its fenced client refuses
every connection. The encode lane owns the view: it verifies its partitions, or rebuilds them from
the compacted topics. A lane that writes Redis then reads its input again from its checkpoint; if it
keeps state of its own, it first puts that back. The same process may be emptied, too, so every view
bears a stamp: another stamp means that another lane has put the view back meanwhile.
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

    async def current_stamp(self) -> str | None:
        """Return the view's stamp, None when it is not declared whole."""

    async def stamp(self) -> str:
        """Declare the view whole; return the stamp, which is like none before."""

    async def checkpoints(self) -> Partitions:
        """Return the lane's checkpoints."""

    async def store_checkpoints(self, offsets: Partitions) -> None:
        """Store checkpoints, in the admitted view only."""

    def admit(self, run_id: str | None, stamp: str | None) -> None:
        """Let fenced clients talk to this Redis process only; None for none at all.

        `stamp` is the view's in which checkpoints may be stored.
        """


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
    restore: Callable[[set[tuple[str, int]]], Awaitable[Partitions]] | None = None
    """Puts back what the lane itself keeps in Redis for these partitions. Returns from which offset
    on their input is not in what was put back; nothing for a partition that has no such offset."""


class ViewGuard:
    """Runs beside a lane's pipeline."""

    def __init__(self, lane: GuardedLane, view: ViewPort, pipeline: HoldPort) -> None:
        self._lane = lane
        self._view = view
        self._pipeline = pipeline
        self._run_id: str | None = None
        self._stamp: str | None = None
        self._compared: frozenset[tuple[str, int]] = frozenset()
        self._being_replayed: frozenset[tuple[str, int]] = frozenset()
        self._forget("not verified yet")

    @property
    def whole(self) -> frozenset[tuple[str, int]]:
        """The partitions of which Redis holds all that was settled, or all but what is replayed.

        A partition that was just assigned joins them with the next look.
        """
        return self._compared | self._being_replayed

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
        stamp = await self._view.current_stamp()
        if self._lane.rebuild is None:
            if stamp is None:
                self._forget("rebuilding: the view is not whole")
                return
            if stamp != self._stamp:
                self._forget("put back meanwhile: the view must be compared")
        elif stamp is None:
            self._view.admit(run_id, None)
            stamp = await self._view.stamp()
        self._stamp = stamp
        if self._lane.rebuild is None and self._lane.replay is not None:
            await self._catch_up(assigned, run_id)
        self._compared = frozenset(assigned)
        self._pipeline.trust(self._compared)
        self._view.admit(run_id, stamp)
        self._pipeline.unhold(HOLD)

    def _close(self, detail: str) -> None:
        """Let nobody write until the next look."""
        self._view.admit(None, None)
        self._pipeline.hold(HOLD, detail, freeze=True)

    def _forget(self, detail: str) -> None:
        """The same, because it may be another Redis: what was compared with it counts no more."""
        self._compared = frozenset()
        self._pipeline.trust(self._compared)
        self._close(detail)

    async def _restore(self, lost: set[tuple[str, int]], run_id: str) -> None:
        self._close(f"rebuilding: partitions {sorted(p for _, p in lost)}")
        await self._quiet()
        self._view.admit(run_id, None)
        checkpoints = await self._view.checkpoints()
        ends = await self._ends(lost)
        behind = {tp for tp in lost if tp not in checkpoints or checkpoints[tp] < ends[tp]}
        if self._lane.rebuild is not None:
            # Of no partition, too: spaces and aliases may be those of an older Redis.
            entities = await self._lane.rebuild({partition for _, partition in behind})
            log.info("view_rebuilt", partitions=sorted(p for _, p in behind), entities=entities)
            # The owner reads documents while it replays, and these partitions are whole enough:
            # what is missing is exactly what the replay brings.
            self._stamp = await self._view.stamp()
            self._view.admit(run_id, self._stamp)
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
        self._view.admit(run_id, self._stamp)
        checkpoints = await self._view.checkpoints()
        ends = await self._ends(fresh)
        behind = {tp for tp in fresh if checkpoints.get(tp, 0) < ends[tp]}
        if self._lane.restore is not None:
            await self._put_back(self._lane.restore, fresh, checkpoints, ends, behind)
        elif behind:
            self._pipeline.hold(HOLD, f"reading again: {sorted(behind)}", freeze=True)
            await self._replay(behind, checkpoints, ends)

    async def _put_back(
        self,
        restore: Callable[[set[tuple[str, int]]], Awaitable[Partitions]],
        fresh: set[tuple[str, int]],
        checkpoints: Partitions,
        ends: Partitions,
        behind: set[tuple[str, int]],
    ) -> None:
        # Without a checkpoint, too: the lane's own state outlives the offsets of its group.
        lost = behind | {tp for tp in fresh if tp not in checkpoints}
        if not lost:
            return
        self._pipeline.hold(HOLD, f"putting back: {sorted(lost)}", freeze=True)
        known = await restore(lost)
        log.info("state_put_back", partitions=sorted(lost))
        starts = dict(checkpoints)
        for tp, offset in known.items():
            starts[tp] = max(offset, starts.get(tp, 0))
        self._pipeline.hold(HOLD, f"reading again: {sorted(behind)}", freeze=True)
        self._being_replayed = frozenset(lost)
        try:
            await self._replay(behind, starts, ends)
        finally:
            self._being_replayed = frozenset()
        await self._view.store_checkpoints({tp: ends[tp] for tp in lost})

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
