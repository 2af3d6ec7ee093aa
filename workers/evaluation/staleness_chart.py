"""The chart of quality against staleness, as a PNG. Needs matplotlib (extra `[evaluate]`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError
from workers.evaluation.bootstrap import Interval

_INCHES = (11.0, 5.2)
_DOTS_PER_INCH = 150
_SPREAD = 0.06
"""Between the curves, so that intervals of one age do not lie on each other."""
_STYLES = (("#0b6e99", "o", "-"), ("#c4561b", "s", "--"), ("#5b7f2b", "^", ":"))


@dataclass(frozen=True, slots=True)
class Point:
    """A share and its 95 % interval."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes: `curves` by name, a point for each age."""

    title: str
    curves: Mapping[str, Sequence[Point]]


def draw_staleness(
    path: Path, *, title: str, y_label: str, ages: Sequence[str], panels: Sequence[Panel], note: str
) -> None:
    """Write the chart; raises ConfigurationError without matplotlib or where it cannot be written.

    All panels share one y axis, which begins at zero: nothing looks steeper than it is.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError as error:
        raise ConfigurationError("--out", f"the evaluate extra is missing: {error}") from error
    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        for place, (name, points) in enumerate(panel.curves.items()):
            color, marker, line = _STYLES[place % len(_STYLES)]
            shift = (place - (len(panel.curves) - 1) / 2) * _SPREAD
            axis.errorbar(
                [age + shift for age in range(len(ages))],
                [point.value for point in points],
                yerr=_reach(points),
                label=name,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=6,
                linewidth=1.8,
                capsize=3,
                elinewidth=1,
            )
        axis.set_title(panel.title, fontsize=11)
        axis.set_xticks(range(len(ages)), ages)
        axis.set_xlabel("age of the vectors that are read")
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(bottom=0.0)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set_ylabel(y_label)
    axes[0].legend(frameon=False, loc="lower left")
    figure.supxlabel(note, fontsize=8, color="#555555")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigurationError("--out", f"{path}: {error.strerror}") from error


def _reach(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Return how far the intervals go below and above the values."""
    intervals = [point.interval or Interval(point.value, point.value) for point in points]
    return (
        [point.value - one.low for point, one in zip(points, intervals, strict=True)],
        [one.high - point.value for point, one in zip(points, intervals, strict=True)],
    )
