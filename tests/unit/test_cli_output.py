import pytest

from schemas.errors import InvalidInput
from streams.cli.output import moment, seconds_of, spelled


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("1.5d", 129_600)]
)
def test_durations_are_read_with_their_unit(text, seconds) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "-3s", "3 weeks", "1e3s"])
def test_anything_else_is_no_duration(text) -> None:
    with pytest.raises(InvalidInput, match="duration"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "?"), (0.44, "0.4 s"), (119, "119.0 s"), (600, "10.0 min"), (864_000, "10.0 d")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds, words) -> None:
    assert spelled(seconds) == words


def test_a_time_out_of_range_is_shown_as_it_is() -> None:
    assert moment(0) == "1970-01-01T00:00:00.000+00:00"
    assert moment(10**30) == str(10**30)
