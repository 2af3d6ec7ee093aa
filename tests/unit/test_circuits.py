import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.circuits import Circuits, RetrySchedule

SCHEDULE = RetrySchedule(first_seconds=1.0, longest_seconds=16.0)


@pytest.fixture
def circuits() -> Circuits:
    return Circuits(SCHEDULE, lambda: 0.999_999)


def fail(
    circuits: Circuits, now: float, *, whole_batch: bool = False, retry_after: float = 0.0
) -> float:
    return circuits.failed(
        "redis", "gone", now=now, whole_batch=whole_batch, retry_after=retry_after
    )


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_at_least_half_and_at_most_the_whole_of_its_ceiling(
    attempt: int, jitter: float
) -> None:
    ceiling = min(16.0, 2.0 ** min(attempt - 1, 30))

    assert ceiling / 2 <= SCHEDULE.delay(attempt, jitter) <= ceiling


def test_a_circuit_opens_after_three_failures_without_a_success(circuits) -> None:
    fail(circuits, 0.0)
    fail(circuits, 0.0)
    assert circuits.blocked_until() is None

    fail(circuits, 0.0)

    assert circuits.blocked_until() == pytest.approx(1.0, rel=1e-3)
    assert circuits.open_circuits() == {"redis": "gone"}


def test_a_success_in_between_keeps_it_closed(circuits) -> None:
    for _ in range(5):
        fail(circuits, 0.0)
        fail(circuits, 0.0)
        circuits.succeeded("redis")

    assert circuits.open_circuits() == {}
    assert circuits.blocked_until() is None
    assert circuits.successes("redis") == 5


def test_a_whole_batch_opens_it_at_once(circuits) -> None:
    fail(circuits, 0.0, whole_batch=True)

    assert circuits.blocked_until() == pytest.approx(1.0, rel=1e-3)


def test_only_failed_probes_double_the_wait(circuits) -> None:
    waits = []
    now = 0.0
    for _ in range(6):
        retry_at = fail(circuits, now, whole_batch=True)
        for late in range(20):
            # Calls that were under way when it opened.
            assert fail(circuits, now + late * 0.01) == retry_at
        waits.append(retry_at - now)
        now = retry_at

    assert waits == pytest.approx([1, 2, 4, 8, 16, 16], rel=1e-3)


def test_after_an_outage_the_wait_is_short_again(circuits) -> None:
    now = 0.0
    for _ in range(8):
        now = fail(circuits, now, whole_batch=True)
    circuits.succeeded("redis")

    assert fail(circuits, now, whole_batch=True) - now == pytest.approx(1.0, rel=1e-3)


def test_the_wish_of_the_dependency_is_kept(circuits) -> None:
    fail(circuits, 0.0, whole_batch=True, retry_after=40.0)

    assert circuits.blocked_until() == pytest.approx(40.0)


def test_a_finished_batch_closes_what_stopped_whole_batches_only(circuits) -> None:
    fail(circuits, 0.0, whole_batch=True)
    for _ in range(3):
        circuits.failed("vllm", "busy", now=0.0, whole_batch=False, retry_after=0.0)

    circuits.completed()

    assert circuits.open_circuits() == {"vllm": "busy"}
    assert (circuits.successes("redis"), circuits.successes("vllm")) == (1, 0)


def test_the_longest_wait_of_all_open_circuits_counts(circuits) -> None:
    fail(circuits, 0.0, whole_batch=True)
    circuits.failed("vllm", "down", now=0.0, whole_batch=True, retry_after=9.0)

    assert circuits.blocked_until() == pytest.approx(9.0)


def test_trouble_beside_the_handlers_is_reported_but_holds_nothing(circuits) -> None:
    circuits.troubled("dead-letters", "kafka: gone")

    assert circuits.open_circuits() == {"dead-letters": "kafka: gone"}
    assert circuits.blocked_until() is None
    circuits.untroubled("dead-letters")
    circuits.untroubled("dead-letters")
    assert circuits.open_circuits() == {}


def test_an_unknown_dependency_has_answered_nothing(circuits) -> None:
    assert circuits.successes("never heard of") == 0
