"""What a lane's event loop reports about itself once a second, for pages and metrics."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Vitals:
    """Written by the loop, read by other threads: fields are replaced, never changed in place."""

    beat_at: float = 0.0
    """Monotonic time of the loop's last report; 0 before the first."""
    assigned: bool = False
    flowing: bool = False
    holds: dict[str, str] = field(default_factory=dict)
    circuits: dict[str, str] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=dict)
    """What it stands still for on purpose, and will go on by itself: it is ready all the same."""
    open_records: int = 0
    oldest_timestamp_ms: int | None = None
    lag_records: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def is_excused(self) -> bool:
        """Whether something known explains that nothing is settled: then it is no stall."""
        return bool(self.holds or self.circuits or self.waits)
