"""Clean text takes a short cut: it must end where the long way does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import _CONTROL, _SPACES, clean_text

# What catalogues hold, and everything that must not get through.
_TROUBLE = " \t\n\x00\x7f\x85\xa0\u061c\u200b\u200f\u2028\u202e\u2060\u2069\u3000\ufeff\U000e0001"


@given(st.text(st.one_of(st.sampled_from(_TROUBLE), st.characters(codec="utf-8"))))
def test_the_short_cut_changes_nothing(text: str) -> None:
    assert clean_text(text) == _SPACES.sub(" ", _CONTROL.sub(" ", text)).strip()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Amélie (2001)", "Amélie (2001)"),
        ("  padded ", "padded"),
        ("two  spaces", "two spaces"),
        ("a\u202eb", "a b"),
        ("千と\u3000千尋", "千と 千尋"),
    ],
)
def test_white_space_and_controls_become_one_space(text: str, clean: str) -> None:
    assert clean_text(text) == clean
