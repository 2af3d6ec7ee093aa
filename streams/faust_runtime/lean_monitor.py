"""Faust's monitor without its bookkeeping for every record, which nothing of Freshet reads."""

from time import monotonic
from typing import Any

from faust.sensors import Monitor


class LeanMonitor(Monitor):
    """Notes only when a partition's last record entered the stream.

    That is what Faust's consumer reads to report a stream that does not move; the lanes count
    records themselves (streams/metrics.py).
    """

    def on_message_in(self, tp: Any, offset: int, message: Any) -> None:
        """Count nothing."""

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None:  # noqa: ARG002
        """Note the time."""
        self.stream_inbound_time[tp] = monotonic()
