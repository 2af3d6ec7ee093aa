"""The pipeline: admit -> coalesce -> batch -> handle -> settle -> release. The engine's one shell.

Owns every admitted record until it is settled exactly once and its acknowledgement is released.
Runs on one event loop; reads clocks through its port only.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.errors import InvalidInput, Permanent, Transient
from schemas.reasons import Reason
from streams.engine.burial import Burial, Condemned
from streams.engine.circuits import Circuits, RetrySchedule
from streams.engine.coalescer import Coalescer, Unit
from streams.engine.flood import FloodGuard
from streams.engine.lane import Lane, LaneLimits, Record
from streams.engine.linger import ArrivalRate
from streams.engine.offset_ledger import Position
from streams.engine.open_records import OpenRecords
from streams.engine.outcomes import Outcome, Result, Settled
from streams.engine.ports import (
    Acknowledger,
    BatchAdmission,
    CheckpointSink,
    Clock,
    DeadLetterSink,
    Ended,
    Observer,
)
from streams.engine.standing_aside import StandingAside
from streams.engine.uncancelled import uncancelled

T = TypeVar("T")
Token = TypeVar("Token")

MIN_ARRIVALS_TO_LINGER = 4.0
"""Lingering pays only when the wait should bring at least this many records."""

ADMISSION_LOOK_SECONDS = 0.05
"""How soon a refused batch asks again: well below the time between two words from outside."""

DEAD_LETTERS = "dead-letters"
CHECKPOINTS = "checkpoints"
ADMISSION = "admission"


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """When to try again, when to blame a record, when to blame everything that arrives."""

    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    max_attempts_alone: int = 8
    flood_share: float = 0.5
    flood_window: int = 200


class Pipeline(Generic[T, Token]):
    """One lane's engine. `admit` from the consumer, `run` as a task, `abandon` at a lost drain."""

    def __init__(  # noqa: PLR0913  # the engine's ports, one each
        self,
        lane: Lane[T],
        limits: LaneLimits,
        policy: FailurePolicy,
        *,
        group: str,
        acknowledger: Acknowledger[Token],
        dead_letters: DeadLetterSink,
        observer: Observer,
        clock: Clock,
        checkpoints: CheckpointSink | None = None,
        admission: BatchAdmission | None = None,
        rank: Callable[[T], int] | None = None,
        aside: StandingAside | None = None,
    ) -> None:
        self._lane = lane
        self._limits = limits
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._admission: BatchAdmission = admission or _AlwaysAdmitted()
        self._aside = aside or StandingAside()

        # Jitter decides when, never what, so the process-wide generator is good enough.
        self._jitter = random.random
        self._coalescer: Coalescer[T, Token] = Coalescer(lane.absorb, rank)
        self._flood = FloodGuard(share=policy.flood_share, window=policy.flood_window)
        self._arrivals = ArrivalRate()
        self.circuits = Circuits(policy.schedule, self._jitter)
        self._open: OpenRecords[Token] = OpenRecords(
            acknowledger,
            checkpoints,
            policy.schedule,
            self._jitter,
            shrunk=self._on_shrunk,
            stored=self._on_stored,
        )
        self._burial: Burial[T, Token] = Burial(
            dead_letters,
            policy.schedule,
            group=group,
            clock=clock,
            jitter=self._jitter,
            buried=self._on_buried,
            retried=self._on_burial_failed,
        )

        # Membership is a handler's licence to settle; an abandon takes it away.
        self._handlers: set[asyncio.Task[None]] = set()
        self._waits_for_slot = False
        self._held: dict[str, str] = {}
        self._freezing: set[str] = set()
        self._draining = False
        self._work = asyncio.Event()
        self._aside.wake(self._work.set)
        self._room = asyncio.Event()
        self._calmer = asyncio.Event()
        self.last_settled_at = clock.monotonic()

    # ---- the consumer's side -------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another record may be admitted now."""
        return (
            self._open.count < self._limits.max_records
            and self._open.bytes < self._limits.max_bytes
            and not self._held
        )

    async def room(self) -> None:
        """Wait for room. This wait is the back-pressure: the consumer's queue fills behind it."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    def admit(self, record: Record, token: Token, *, generation: int) -> None:
        """Take one record. Never raises for what the record holds, never blocks."""
        position = self._open.open(
            record, token, generation=generation, now=self._clock.monotonic()
        )
        self._arrivals.arrived()
        lane = self._lane
        try:
            value = lane.decode(record, self._clock.now_ms())
        except Permanent as error:
            self._burial.add(Condemned(record, position, error, f"{lane.name}.decode"))
            if self._flood.saw(invalid=isinstance(error, InvalidInput)):
                self._observer.flooded(str(error))
            self._work.set()
            return
        self._flood.saw(invalid=False)
        self._coalescer.offer(
            Unit(
                lane.key(value),
                value,
                record,
                position,
                lane.version(value),
                lane.tokens(value),
                lane.due_at_ms(value),
            )
        )
        # While every slot is taken only a finished handler is news to the dispatcher; waking it
        # for each record would cost more than the record itself.
        if not self._waits_for_slot:
            self._work.set()

    def hold(self, name: str, detail: str, *, freeze: bool = False) -> None:
        """Stop admitting and handling (paused, rebuilding) until `unhold` of the same name.

        With `freeze` nothing is checkpointed or acknowledged meanwhile either.
        """
        self._held[name] = detail
        if freeze:
            self._freezing.add(name)
            self._open.freeze()

    def unhold(self, name: str) -> None:
        """Go on, unless held under another name."""
        if self._held.pop(name, None) is None:
            return
        self._freezing.discard(name)
        if not self._freezing:
            self._open.thaw()
        if not self._held:
            self._flood.reset()
            self._room.set()
            self._work.set()

    def trust(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Checkpoint and acknowledge these partitions only; without a call, all of them."""
        self._open.trust(partitions)

    @property
    def holds(self) -> dict[str, str]:
        """Why the pipeline stands still, by name."""
        return dict(self._held)

    @property
    def waits(self) -> dict[str, str]:
        """What open records wait for though nothing is wrong, by name."""
        refusal = self._admission.refusal()
        return {ADMISSION: refusal} if refusal and self._open.count else {}

    # ---- draining ------------------------------------------------------------------------

    @property
    def open_records(self) -> int:
        """Records admitted and not yet acknowledged."""
        return self._open.count

    @property
    def is_handling(self) -> bool:
        """Whether a handler or a checkpoint is under way right now."""
        return bool(self._handlers) or self._open.is_storing

    async def quiet(self) -> None:
        """Wait until nothing is being handled or stored; only of use while held."""
        while self.is_handling:
            self._calmer.clear()
            await self._calmer.wait()

    @property
    def is_stuck(self) -> bool:
        """Whether nothing in it can end soon: all that is left waits for a dependency or a time."""
        if self._handlers or self._burial.is_busy or not self._open.is_stuck:
            return False
        held = self.circuits.blocked_until() is not None or bool(self._held) or self._draining
        return held or not self._coalescer.ready_count

    def start_drain(self) -> None:
        """Finish the batches in handlers and start no other.

        What only waits costs nothing to give up: it comes again, and whoever owns the partition
        next need not wait for it.
        """
        self._draining = True

    def end_drain(self) -> None:
        """Start batches again."""
        self._draining = False
        self._work.set()

    def abandon(self) -> list[Token]:
        """Forget every open record; return the tokens the consumer must stop waiting for.

        Synchronous on purpose: between the caller's last look at the flow and the end of this call
        nothing else may run, or live records of the next generation would be abandoned with it.
        """
        for task in self._handlers:
            task.cancel()
        self._handlers.clear()
        self._burial.abandon()
        self._coalescer.clear()
        self._waits_for_slot = False
        self._work.set()
        self._calmer.set()
        return self._open.abandon()

    def oldest_timestamps_ms(self) -> dict[tuple[str, int], int]:
        """Return the Kafka timestamp of the record that holds each partition back."""
        return self._open.oldest_timestamps_ms()

    def settled_ends(self) -> dict[tuple[str, int], int]:
        """Return one past the greatest settled offset of each partition of this generation.

        Committed or not, in order or not: what is below may have had its effect already.
        """
        return self._open.settled_ends()

    # ---- the worker's side ---------------------------------------------------------------

    async def run(self) -> None:
        """Handle and release until cancelled; an exception out of a handler ends it (a bug)."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatch(group), name=f"{self._lane.name}-dispatch")
            group.create_task(self._open.keep_storing(), name=f"{self._lane.name}-checkpoints")

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._work.clear()
            self._burial.start(group)
            pause = self._launch(group)
            if pause == 0:
                # Let the consumer put in what has arrived before looking again. Under load that is
                # a record or two: a handler that answers at once would get no batches otherwise.
                await asyncio.sleep(0)
                await self._linger()
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._work.wait()
            except TimeoutError:
                continue
            await self._linger()

    async def _linger(self) -> None:
        seconds = self._limits.linger_seconds
        if not seconds or self._coalescer.ready_count >= self._limits.max_batch:
            return
        expected = self._arrivals.expects_within(seconds, now=self._clock.monotonic())
        if expected >= MIN_ARRIVALS_TO_LINGER:
            await asyncio.sleep(seconds)

    def _launch(self, group: asyncio.TaskGroup) -> float | None:
        """Start what may start; return seconds until it is worth looking again (None: on work)."""
        self._waits_for_slot = False
        if self._held or self._draining:
            return None
        slots, max_units = self._limits.max_batches_in_flight, self._limits.max_batch
        working = len(self._handlers) - self._aside.freed
        blocked_until = self.circuits.blocked_until()
        if blocked_until is not None:
            wait = blocked_until - self._clock.monotonic()
            if wait > 0:
                return wait
            # A single probe finds out whether the dependency is back.
            slots, max_units, working = 1, 1, len(self._handlers)
        if working >= slots:
            self._waits_for_slot = True
            return None
        # Asked before a batch is taken, so that what is refused waits as a record and not as a
        # handler: a drain gives it up at once.
        if self._admission.refusal():
            return ADMISSION_LOOK_SECONDS
        batch = self._coalescer.take(
            now_ms=self._clock.now_ms(),
            max_units=max_units,
            max_tokens=self._limits.max_batch_tokens,
        )
        if not batch:
            due_ms = self._coalescer.next_due_ms()
            return None if due_ms is None else max(0.001, (due_ms - self._clock.now_ms()) / 1000)
        task = group.create_task(self._handle(batch), name=f"{self._lane.name}-handle")
        self._handlers.add(task)
        self._admission.entered()
        # However it ends, even before its first step.
        task.add_done_callback(self._on_left)
        return 0

    async def _handle(self, batch: list[Unit[T, Token]]) -> None:
        task = asyncio.current_task()
        started = self._clock.monotonic()
        try:
            results = await uncancelled(
                self._lane.handle([unit.value for unit in batch]), f"a handler of {self._lane.name}"
            )
        except Transient as error:
            if task in self._handlers:
                self._retry(batch, error, whole_batch=True)
        else:
            # An abandoned handler may end in spite of its cancellation: its records come again.
            if task in self._handlers:
                self._conclude(batch, results)
                self._observer.batch_handled(len(batch), self._clock.monotonic() - started)
        finally:
            if task is not None:
                self._handlers.discard(task)
            self._calmer.set()
            self._work.set()

    def _conclude(self, batch: list[Unit[T, Token]], results: Sequence[Result]) -> None:
        ended: list[Ended] = []
        failed: list[tuple[Unit[T, Token], Transient]] = []
        answers: Counter[tuple[str, ...]] = Counter()
        now = self._clock.monotonic()
        for unit, result in zip(batch, results, strict=True):
            match result:
                case Settled():
                    answers[result.called] += 1
                    self._settle(unit, result, ended, now)
                case Transient():
                    failed.append((unit, result))
                case Permanent():
                    self._condemn(unit, result, attempts=unit.attempts + 1)
        answered = {name for called in answers for name in called}
        # The successes first, so that they count as evidence.
        for called, units in answers.items():
            for name in called:
                self.circuits.succeeded(name, units)
        if len(failed) < len(batch):
            self.circuits.completed()
        for unit, error in failed:
            self._retry(
                [unit], error, whole_batch=False, spares_circuit=error.dependency in answered
            )
        if ended:
            self._report(ended)

    def _settle(
        self, unit: Unit[T, Token], result: Settled, ended: list[Ended], now: float
    ) -> None:
        self._coalescer.finish(unit)
        key = unit.key
        for passenger in unit.passengers:
            if _settle_position(passenger.position):
                outcome = passenger.outcome or result.outcome
                waited = now - passenger.position.opened_at
                ended.append(Ended(key, passenger.version, outcome, "", "", waited))
        if _settle_position(unit.position):
            waited = now - unit.position.opened_at
            ended.append(
                Ended(key, unit.version, result.outcome, result.reason, result.detail, waited)
            )

    def _report(self, ended: list[Ended]) -> None:
        self.last_settled_at = self._clock.monotonic()
        self._observer.ended(ended)
        self._open.release()

    # ---- failures ------------------------------------------------------------------------

    def _retry(
        self,
        units: list[Unit[T, Token]],
        error: Transient,
        *,
        whole_batch: bool,
        spares_circuit: bool = False,
    ) -> None:
        wish = error.retry_after_seconds or 0.0
        if not spares_circuit:
            self.circuits.failed(
                error.dependency,
                error.detail,
                now=self._clock.monotonic(),
                whole_batch=whole_batch,
                retry_after=wish,
            )
        for unit in units:
            unit.attempts += 1
            self._suspect(unit, error, alone=len(units) == 1)
            if unit.failures_alone >= self._policy.max_attempts_alone:
                verdict = Permanent(Reason.FAILS_ALONE, str(error))
                self._condemn(unit, verdict, attempts=unit.attempts)
                continue
            delay = max(wish, self._policy.schedule.delay(unit.attempts, self._jitter()))
            self._coalescer.put_back(unit, due_at_ms=self._clock.now_ms() + round(delay * 1000))
        self._observer.retried(error.dependency, error.detail, len(units))

    def _suspect(self, unit: Unit[T, Token], error: Transient, *, alone: bool) -> None:
        # A failure counts only if the dependency answered others since the unit's last one: in an
        # outage nobody is answered, so nobody is blamed. A dependency that names a time to come
        # back speaks of itself, not of the unit.
        answered = self.circuits.successes(error.dependency)
        seen_before = unit.answered_before if unit.failed_on == error.dependency else -1
        if 0 <= seen_before < answered and error.retry_after_seconds is None:
            unit.suspicions += 1
            unit.failures_alone += alone
        unit.failed_on, unit.answered_before = error.dependency, answered

    def _condemn(self, unit: Unit[T, Token], error: Permanent, *, attempts: int) -> None:
        # The entity stays in flight until the letter is acknowledged, so nothing overtakes it.
        stage = f"{self._lane.name}.handle"
        self._burial.add(Condemned(unit.record, unit.position, error, stage, attempts, unit))

    def _on_buried(self, batch: Sequence[Condemned[T, Token]]) -> None:
        self.circuits.untroubled(DEAD_LETTERS)
        ended: list[Ended] = []
        now = self._clock.monotonic()
        for condemned in batch:
            error = condemned.error
            result = Settled(Outcome.DEAD_LETTERED, error.reason.value, error.detail)
            if condemned.unit is not None:
                self._settle(condemned.unit, result, ended, now)
            elif _settle_position(condemned.position):
                waited = now - condemned.position.opened_at
                ended.append(
                    Ended(None, None, result.outcome, result.reason, result.detail, waited)
                )
        self._report(ended)
        self._work.set()

    # ---- what the parts report -----------------------------------------------------------

    def _on_burial_failed(self, error: Transient, records: int) -> None:
        self.circuits.troubled(DEAD_LETTERS, str(error))
        self._observer.retried(error.dependency, error.detail, records)

    def _on_stored(self, error: Transient | None) -> None:
        if error is None:
            self.circuits.untroubled(CHECKPOINTS)
        else:
            self.circuits.troubled(CHECKPOINTS, str(error))
            self._observer.retried(error.dependency, error.detail, 0)
        self._calmer.set()

    def _on_shrunk(self) -> None:
        self._room.set()

    def _on_left(self, _task: asyncio.Task[None]) -> None:
        self._admission.left()


class _AlwaysAdmitted:
    """The admission of a lane whose own bounds are enough."""

    def refusal(self) -> str:
        return ""

    def entered(self) -> None:
        pass

    def left(self) -> None:
        pass


def _settle_position(position: Position[Token]) -> bool:
    """Settle unless its generation was abandoned; return whether it still counted."""
    if position.ledger.abandoned:
        return False
    position.ledger.settle(position)
    return True
