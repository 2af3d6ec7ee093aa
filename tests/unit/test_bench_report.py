"""The bench's arithmetic and the shape of what it prints; nothing is timed here."""

import json

import pytest

from tests.bench.pairs import Bound, Run, alternately, percentile, ratio
from tests.bench.report import SECTIONS, Section, json_line, table


def runs(*rates: float) -> list[Run]:
    return [Run(100, 100 / rate, 0.001) for rate in rates]


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    found = ratio([10.0, 40.0, 90.0], [10.0, 20.0, 30.0], target=1.5)

    assert found.runs == (1.0, 2.0, 3.0)
    assert found.median == 2.0
    assert found.met is True


@pytest.mark.parametrize(
    ("bound", "met"), [(Bound.AT_LEAST, False), (Bound.AT_MOST, True)], ids=str
)
def test_a_ratio_is_held_against_its_target_on_the_side_asked_for(bound: Bound, met: bool) -> None:
    assert ratio([1.0] * 3, [1.0] * 3, target=1.5, bound=bound).met is met


def test_a_ratio_without_a_target_says_neither_met_nor_missed() -> None:
    found = ratio([1.0] * 3, [2.0] * 3)

    assert found.met is None
    assert found.to_json() == {"median": 0.5, "runs": [0.5, 0.5, 0.5]}


def test_fewer_than_three_pairs_are_no_ratio() -> None:
    with pytest.raises(ValueError, match="2 pairs"):
        ratio([1.0, 2.0], [1.0, 2.0])


def test_pairs_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0] * 4, [1.0] * 3)


def test_every_contender_runs_once_a_round_and_takes_turns_to_be_first() -> None:
    order = list(alternately(("a", "b", "c"), 3))

    assert order == [
        *((0, name) for name in "abc"),
        *((1, name) for name in "bca"),
        *((2, name) for name in "cab"),
    ]


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)]
)
def test_percentiles_are_nearest_ranks(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_run_knows_its_rate_and_what_each_thing_cost() -> None:
    run = Run(count=200, seconds=4.0, cpu_seconds=0.001)

    assert run.per_second == 50.0
    assert run.cpu_us == pytest.approx(5.0)


def test_a_comparison_is_made_by_wall_clock_and_by_cpu_time_and_only_the_first_has_a_target() -> (
    None
):
    ours = [Run(100, 2.0, 0.004)] * 3
    theirs = [Run(100, 1.0, 0.001)] * 3
    section = Section()

    section.add_comparison("to_raw", ours, theirs, "to raw", target=0.5)

    assert section.facts == {
        "to_raw": {"median": 0.5, "runs": [0.5] * 3, "at_least": 0.5, "met": True},
        "to_raw_by_cpu": {"median": 0.25, "runs": [0.25] * 3},
    }


def test_the_json_object_has_every_section_and_null_for_those_that_did_not_run() -> None:
    section = Section()
    section.add_runs("put", runs(10, 30, 20), "put", "entities")
    section.add_latency("get", [1.0, 2.0, 3.0], "get")
    section.add_ratio("to_floor", ratio([1.0] * 3, [2.0] * 3, target=0.4), "to floor")

    line = json_line({"store": section})

    assert "\n" not in line
    found = json.loads(line)
    assert tuple(found) == SECTIONS
    assert found["plumbing"] is None
    assert found["store"] == {
        "put": {
            "per_second": 20.0,
            "cpu_us": 10.0,
            "count": 100,
            "runs_per_second": [10.0, 30.0, 20.0],
        },
        "get": {"p50": 2.0, "p95": 3.0, "p99": 3.0, "n": 3},
        "to_floor": {"median": 0.5, "runs": [0.5] * 3, "at_least": 0.4, "met": True},
    }


def test_not_a_number_never_reaches_the_json_object() -> None:
    section = Section()
    section.add("rss", float("nan"), "rss", "?")

    with pytest.raises(ValueError, match="JSON"):
        json_line({"memory": section})


def test_the_table_has_a_line_for_every_finding() -> None:
    section = Section()
    section.add_runs("put", runs(10, 20, 30), "put", "entities")
    section.add_ratio("to_raw", ratio([1.0] * 3, [2.0] * 3, target=0.9), "to raw")

    shown = table({"store": section})

    assert shown.row_count == 2
