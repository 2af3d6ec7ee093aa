"""The chart of quality against staleness: a picture of the size and kind that is promised."""

import struct
import sys

import pytest

from schemas.errors import ConfigurationError
from workers.evaluation.bootstrap import Interval
from workers.evaluation.staleness_chart import Panel, Point, draw_staleness

AGES = ("live", "1 h", "never")


def draw(path) -> None:
    points = [Point(0.4, Interval(0.35, 0.45)), Point(0.3, Interval(0.25, 0.35)), Point(0.0, None)]
    draw_staleness(
        path,
        title="Quality",
        y_label="share",
        ages=AGES,
        panels=[Panel("new", {"both": points}), Panel("all", {"both": points, "users": points})],
        note="a test",
    )


def test_it_is_a_png_of_the_promised_size(tmp_path):
    pytest.importorskip("matplotlib")

    draw(tmp_path / "chart.png")

    data = (tmp_path / "chart.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1_650, 780)


def test_a_path_that_cannot_be_written_to_is_named(tmp_path):
    pytest.importorskip("matplotlib")

    with pytest.raises(ConfigurationError, match=r"chart\.png: No such file"):
        draw(tmp_path / "missing" / "chart.png")


def test_without_the_extra_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigurationError, match="the evaluate extra is missing"):
        draw(tmp_path / "chart.png")
