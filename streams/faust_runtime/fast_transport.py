"""The inlined drain: Faust's own consumer without four asyncio tasks for every record.

`Consumer._drain_messages` races each record's callback against `suspend_flow`. The callback of a
raw topic almost never blocks, so it is run inline first; only if it blocks does upstream's race
decide, with the rest of the coroutine. Everything else is upstream's. Also wakes a fully paused
consumer at once, where upstream sleeps a second.

Allowed only on the versions it was tested with (tests/unit/test_faust_guard.py); `can_use` says.
A callback must not capture the current task before it first suspends (asyncio.timeout, TaskGroup):
its first step runs as the pump's own task.
"""

import asyncio
import importlib.metadata
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from mode.services import WaitResults

TESTED_VERSIONS = {
    "faust-streaming": "0.15.3",
    "mode-streaming": "0.7.1",
    "aiokafka": "0.14.0",
}


def can_use() -> bool:
    """Return whether this interpreter and these libraries are the ones it was tested with."""
    return sys.version_info[:2] == (3, 11) and all(
        importlib.metadata.version(name) == version for name, version in TESTED_VERSIONS.items()
    )


class _Rest:
    """Awaits the rest of a coroutine that was started by hand and yielded `waits_for`."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waits_for = self._coroutine, self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001  # cancellation is passed on too
                    waits_for = coroutine.throw(error)
                else:
                    waits_for = coroutine.send(sent)
        except StopIteration as stop:
            return stop.value


async def _rest(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    return await _Rest(coroutine, waits_for)


class FastConsumer(driver.Consumer):
    """Upstream's consumer with three overrides."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unpaused = asyncio.Event()
        super().__init__(*args, **kwargs)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> WaitResults:
        """Run the callback inline; hand over to upstream's race as soon as it blocks."""
        if (
            len(coros) != 2
            or timeout is not None
            or type(coros[0]) is not types.CoroutineType
            or self.suspend_flow.is_set()
            or self.should_stop
        ):
            return await super().wait_first(*coros, timeout=timeout)
        call, race = coros
        try:
            waits_for = call.send(None)
        except StopIteration as stop:
            race.close()
            return WaitResults([call], [stop.value], False)
        except BaseException:
            race.close()
            raise
        return await super().wait_first(_rest(call, waits_for), race)

    def on_buffer_drop(self, tp: Any) -> None:
        """Wake a paused consumer."""
        super().on_buffer_drop(tp)
        self._unpaused.set()

    def resume_partitions(self, tps: Any) -> None:
        """Wake a paused consumer."""
        super().resume_partitions(tps)
        self._unpaused.set()

    def stop_flow(self) -> None:
        """Wake a paused consumer, so that it notices."""
        super().stop_flow()
        self._unpaused.set()

    async def _wait_next_records(self, timeout: float) -> Any:
        if self.flow_active and not self.app.client_only and not self._get_active_partitions():
            self._unpaused.clear()
            # Upstream sleeps a second here whatever happens.
            await self.wait(self._unpaused, timeout=1.0)  # type: ignore[arg-type]  # an asyncio.Event works
            return {}, self._get_active_partitions()
        return await super()._wait_next_records(timeout)


class FastTransport(driver.Transport):
    """The transport that makes FastConsumers; `App.transport` and `Consumer` are public hooks."""

    Consumer = FastConsumer


def install(app: faust.App) -> None:
    """Let `app` use the inlined drain; before its first agent."""
    app.transport = FastTransport(app.conf.broker_consumer, app)
