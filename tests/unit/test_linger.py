import pytest

from streams.engine.linger import ArrivalRate


def steady(rate: ArrivalRate, per_second: float, *, start: float, seconds: float) -> float:
    """Let records arrive evenly, looked at every 10 ms; return the time at the end."""
    looks = round(seconds * 100)
    arrived = 0
    for look in range(1, looks + 1):
        due = round(per_second * look / 100)
        rate.arrived(due - arrived)
        arrived = due
        rate.expects_within(0.005, now=start + look / 100)
    return start + seconds


def test_nothing_is_expected_at_first() -> None:
    rate = ArrivalRate()
    rate.arrived()

    assert rate.expects_within(0.005, now=10_000.0) < 0.1


def test_a_steady_load_is_expected_to_go_on() -> None:
    rate = ArrivalRate()
    rate.expects_within(0.005, now=100.0)

    now = steady(rate, 10_000, start=100.0, seconds=1.0)

    assert rate.expects_within(0.005, now=now) == pytest.approx(50, rel=0.05)


def test_at_low_load_waiting_is_not_worth_it() -> None:
    rate = ArrivalRate()
    rate.expects_within(0.005, now=100.0)

    now = steady(rate, 50, start=100.0, seconds=2.0)

    assert rate.expects_within(0.005, now=now) < 1


def test_the_end_of_a_burst_is_noticed_within_half_a_second() -> None:
    rate = ArrivalRate()
    rate.expects_within(0.005, now=100.0)
    now = steady(rate, 20_000, start=100.0, seconds=1.0)

    now = steady(rate, 0, start=now, seconds=0.5)

    assert rate.expects_within(0.005, now=now) < 1


def test_looks_within_two_milliseconds_count_together() -> None:
    rate = ArrivalRate()
    rate.expects_within(0.005, now=100.0)
    rate.arrived(10)
    before = rate.expects_within(1.0, now=100.001)
    rate.arrived(10)

    after = rate.expects_within(1.0, now=100.1)

    assert before == 0
    assert after == pytest.approx(200)
