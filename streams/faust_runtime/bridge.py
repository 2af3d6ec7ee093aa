"""The semi-public Faust attributes that the delivery contract needs, in one place and nowhere else.

Guarded by tests/unit/test_faust_guard.py: an upgrade that moves one breaks loudly.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted

from streams.engine.lane import Record


class FaustBridge:
    """An app's consumer as the engine needs it; tokens are Faust's consumer messages."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    @property
    def _consumer(self) -> Any:  # its declared type lacks what this file is about
        return self._app.consumer

    @property
    def generation(self) -> int:
        """The consumer-group generation; it grows at every rebalance."""
        return int(self._app.consumer_generation_id)

    @property
    def is_stopping(self) -> bool:
        """Whether the app was told to stop, or crashed."""
        return bool(self._app.should_stop)

    @property
    def is_flowing(self) -> bool:
        """Whether records flow: neither rebalancing nor stopping."""
        return bool(self._consumer.can_resume_flow.is_set())

    async def wait_suspended(self) -> None:
        """Return when the flow is suspended (a rebalance or a stop has begun)."""
        await self._consumer.suspend_flow.wait()

    async def wait_flowing(self) -> None:
        """Return when the flow has resumed."""
        await self._consumer.can_resume_flow.wait()

    def acknowledge(self, tokens: Sequence[Any]) -> None:
        """Let the consumer commit past these messages; those of an older generation are dropped."""
        consumer, generation = self._consumer, self._app.consumer_generation_id
        for message in tokens:
            if message.generation_id == generation:
                message.ack(consumer)
            else:
                consumer.unacked.discard(message)

    def forget(self, tokens: Sequence[Any]) -> None:
        """Let the consumer stop waiting for these messages without acknowledging them.

        `wait_empty` has no time limit, so a drain that failed would hang for ever otherwise.
        """
        unacked = self._consumer.unacked
        for message in tokens:
            unacked.discard(message)

    def assignment(self) -> set[tuple[str, int]]:
        """Return the assigned (topic, partition) pairs, none before the consumer has started."""
        try:
            assigned = self._consumer.assignment()
        except ConsumerNotStarted:
            return set()
        return {(tp.topic, tp.partition) for tp in assigned}

    async def end_offsets(self, tps: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return end offsets by RPC: Faust's own gauge is stale exactly when a lane lags."""
        wanted = [faust.types.TP(topic, partition) for topic, partition in tps]
        found = await asyncio.wait_for(self._consumer.highwaters(*wanted), timeout=10)
        return {(tp.topic, tp.partition): offset or 0 for tp, offset in found.items()}

    def committed_offsets(self, tps: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return committed offsets of the group; partitions that never committed are left out."""
        found = self._consumer._committed_offset
        return {
            (tp.topic, tp.partition): offset
            for tp, offset in found.items()
            if offset is not None and (tp.topic, tp.partition) in tps
        }


def to_record(message: Any) -> Record:
    """Return a Faust consumer message as the engine's record."""
    headers = message.headers
    if not headers:
        pairs: tuple[tuple[str, bytes], ...] = ()
    else:
        pairs = tuple(headers.items() if isinstance(headers, dict) else headers)
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        pairs,
        round((message.timestamp or 0) * 1000),
    )
