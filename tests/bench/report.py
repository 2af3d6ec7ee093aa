"""What the bench prints: a table for people, and one JSON object for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from tests.bench.pairs import Bound, Ratio, Run, percentile, ratio, rounded

SECTIONS = (
    "plumbing",
    "encode",
    "vectors",
    "freshness",
    "behaviour",
    "llm",
    "burst",
    "read",
    "store",
    "memory",
)
"""The keys of the JSON object, in order; a section that did not run is null."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; `met` None where there is no target."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Section:
    """What a section found: its part of the JSON object, and its lines of the table."""

    facts: dict[str, object] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, facts: object, what: str, value: str) -> None:
        """Add a finding without a target."""
        self.facts[name] = facts
        self.rows.append(Row(what, value))

    def add_ratio(self, name: str, found: Ratio, what: str) -> None:
        """Add a ratio, and whether it meets its target."""
        self.facts[name] = found.to_json()
        runs = ", ".join(f"{run:.2f}" for run in found.runs)
        target = ""
        if found.target is not None:
            sign = "≥" if found.bound is Bound.AT_LEAST else "≤"
            target = f"{sign} {found.target:g}"
        self.rows.append(Row(what, f"{found.median:.2f}  ({runs})", target, found.met))

    def add_runs(self, name: str, runs: Sequence[Run], what: str, unit: str) -> None:
        """Add the median rate of some runs, and what each thing cost in CPU time."""
        rate = percentile([run.per_second for run in runs], 0.5)
        cpu = percentile([run.cpu_us for run in runs], 0.5)
        facts = {
            "per_second": rounded(rate),
            "cpu_us": rounded(cpu),
            "count": runs[0].count,
            "runs_per_second": [rounded(run.per_second) for run in runs],
        }
        self.add(name, facts, what, f"{rate:,.0f} {unit}/s   {cpu:,.1f} µs CPU each")

    def add_comparison(
        self,
        name: str,
        ours: Sequence[Run],
        theirs: Sequence[Run],
        what: str,
        *,
        target: float | None = None,
    ) -> None:
        """Add how our rate compares with theirs, pair by pair, by wall clock and by CPU time."""
        wall = ratio(
            [run.per_second for run in ours], [run.per_second for run in theirs], target=target
        )
        self.add_ratio(name, wall, what)
        # Per CPU second the neighbours of a shared machine matter less.
        cpu = ratio([1 / run.cpu_us for run in ours], [1 / run.cpu_us for run in theirs])
        self.add_ratio(f"{name}_by_cpu", cpu, "  the same, events per CPU second")

    def add_latency(self, name: str, milliseconds: Sequence[float], what: str) -> None:
        """Add the percentiles of some latencies."""
        facts = {
            f"p{round(share * 100)}": rounded(percentile(milliseconds, share))
            for share in (0.5, 0.95, 0.99)
        } | {"n": len(milliseconds)}
        value = "   ".join(f"{key} {facts[key]:.2f} ms" for key in ("p50", "p95", "p99"))
        self.add(name, facts, what, value)


def json_line(found: Mapping[str, Section]) -> str:
    """Return the JSON object, on one line."""
    return json.dumps(
        {name: found[name].facts if name in found else None for name in SECTIONS}, allow_nan=False
    )


def table(found: Mapping[str, Section]) -> Table:
    """Return the table."""
    shown = Table(title="Freshet bench", title_justify="left")
    for column in ("section", "what", "median  (pairs)", "target", ""):
        shown.add_column(column, overflow="fold")
    for name, section in found.items():
        for number, row in enumerate(section.rows):
            shown.add_row(
                name if number == 0 else "",
                row.what,
                row.value,
                row.target,
                {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met],
                end_section=number == len(section.rows) - 1,
            )
    return shown
