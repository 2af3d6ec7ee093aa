"""The end of the demo: tables for people, one JSON object for programs. Pure but for rich.

`Result.to_json` has the keys that the README documents; tables may say more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.demo.llm_counts import LlmCounts, ModelFigures
from deploy.demo.user_figures import UserFigures
from workers.evaluation.cold_start import ColdStartFigures

PERCENTILES = (50, 95, 99)

_ASKED = "asked_"
"""How the gate's reasons to ask begin."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of the demo measured. Freshness is in ms by stage, of single events.

    `load_seconds` is how long the back catalogue took by stage: many events at once, so that is
    throughput. `sent` counts the feed by kind, `items_outcomes` what the items lane said of it,
    `preferences` what the gate of users' knowledge decided, by reason. `unaccounted` names what was
    sent and neither took effect nor became a dead letter. `model` is None without a real one.
    """

    seconds: float
    events: int
    items_live: Mapping[str, int]
    freshness_ms: Mapping[str, Sequence[float]]
    llm: LlmCounts
    dead_letters: Mapping[str, int]
    lag: Mapping[str, int]
    cold_start: Mapping[str, ColdStartFigures]
    users: UserFigures
    load_seconds: Mapping[str, float]
    sent: Mapping[str, int]
    items_outcomes: Mapping[str, int]
    preferences: Mapping[str, int] = field(default_factory=dict)
    gone_ms: Sequence[float] = ()
    unaccounted: Sequence[str] = ()
    notes: Sequence[str] = ()
    model: ModelFigures | None = None

    def to_json(self) -> dict[str, object]:
        """Return the one object that `--json` prints."""
        return {
            "seconds": round(self.seconds, 1),
            "events": self.events,
            "items_live": dict(self.items_live),
            "freshness_ms": {
                stage: percentiles(values) for stage, values in self.freshness_ms.items()
            },
            "llm": {
                "calls": self.llm.calls,
                "saved_fingerprint": self.llm.saved_fingerprint,
                "saved_coalesced": self.llm.saved_coalesced,
                "saved_shared": self.llm.saved_shared,
                "accepted": self.llm.accepted,
                "refused": dict(self.llm.refused),
                "by_reason": {reason: asdict(cost) for reason, cost in self.llm.costs.items()},
                "server": None if self.model is None else self.model.to_json(),
            },
            "dead_letters": dict(self.dead_letters),
            "lag": dict(self.lag),
            "cold_start": {
                regime: {
                    "n": figures.n,
                    "missed": _rounded(figures.missed),
                    "hr20": _rounded(figures.hr20),
                    "hr100": _rounded(figures.hr100),
                    "percentile": _rounded(figures.percentile),
                    "audience_auc": _rounded(figures.audience_auc),
                }
                for regime, figures in self.cold_start.items()
            },
            "users": {
                "new": self.users.new,
                "rankable_ms": percentiles(self.users.rankable_ms),
                "hr100_after": {
                    str(known): {"n": rate.n, "hr100": _rounded(rate.hr100)}
                    for known, rate in self.users.hr100_after.items()
                },
                "read": self.users.read,
                "stale": self.users.stale,
                "knowledge": {
                    "asked": sum(self.asked.values()),
                    "reasons": dict(sorted(self.preferences.items())),
                },
            },
        }

    @property
    def asked(self) -> dict[str, int]:
        """Return the calls about users that the gate let through, by reason."""
        return {
            reason: count for reason, count in self.preferences.items() if reason.startswith(_ASKED)
        }


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50, p95 and p99, None without values."""
    if not values:
        return {f"p{share}": None for share in PERCENTILES}
    found = np.percentile(np.asarray(values, np.float64), PERCENTILES)
    return {
        f"p{share}": round(float(value), 1) for share, value in zip(PERCENTILES, found, strict=True)
    }


def tables(result: Result) -> RenderableType:
    """Return the summary for people."""
    return Group(
        _feed_table(result),
        _llm_table(result),
        _freshness_table(result),
        _cold_start_table(result),
        _users_table(result),
        *(Text(f"  {note}") for note in result.notes),
        *(Text(f"  not accounted for: {line}") for line in result.unaccounted),
    )


def _feed_table(result: Result) -> Table:
    table = _table(f"{result.events:,} events in {result.seconds:.0f} s", "", "")
    table.add_row("sent", _counts(result.sent))
    table.add_row("what the items lane made of them", _counts(result.items_outcomes))
    table.add_row("live films by stage", _counts(result.items_live))
    table.add_row("dead letters by reason", _counts(result.dead_letters))
    table.add_row("lag at the end, in records", _counts(result.lag))
    return table


def _llm_table(result: Result) -> Table:
    llm, model = result.llm, result.model
    writer = "recorded answers" if model is None else model.model
    table = _table(f"Language model ({writer}): {llm.calls:,} calls", "", "")
    calls = {reason: cost.calls for reason, cost in llm.costs.items()}
    table.add_row("calls by why they were made", _counts(calls))
    table.add_row(
        "calls saved",
        f"{llm.saved_fingerprint:,} nothing new was said (fingerprint), "
        f"{llm.saved_coalesced:,} replaced before they were asked (coalesced), "
        f"{llm.saved_shared:,} asked about together (shared)",
    )
    written = {reason: cost.completion_tokens for reason, cost in llm.costs.items()}
    table.add_row(
        "tokens",
        f"{llm.prompt_tokens:,} read, {llm.completion_tokens:,} written: {_counts(written)}",
    )
    refused = sum(llm.refused.values())
    why = f": {_counts(llm.refused)}" if refused else ""
    table.add_row("answers that became knowledge", f"{llm.accepted:,}; {refused:,} refused{why}")
    if model is not None:
        table.add_row(
            "while the back catalogue was loaded",
            f"{model.tokens_per_second:,.0f} tokens written a second, "
            f"{model.prefix_hit_rate:.0%} of prompt tokens from the prefix cache",
        )
    return table


def _freshness_table(result: Result) -> Table:
    table = _table(
        "Freshness: accepted by Kafka to readable by a ranker, in ms",
        "stage",
        "events",
        *(f"p{share}" for share in PERCENTILES),
    )
    rows = [
        *result.freshness_ms.items(),
        *([("removed", result.gone_ms)] if result.gone_ms else []),
    ]
    for stage, values in rows:
        table.add_row(
            stage,
            f"{len(values):,}",
            *(_shown(value, ".1f") for value in percentiles(values).values()),
        )
    for stage, seconds in result.load_seconds.items():
        table.add_row(f"whole back catalogue, {stage}", "", f"within {seconds:.1f} s", "", "")
    return table


def _cold_start_table(result: Result) -> Table:
    table = _table(
        "Cold start: ratings >= 7 of new films, ranked among all live films",
        "regime",
        "ratings",
        "no vector yet",
        "in first 20",
        "in first 100",
        "percentile",
        "audience AUC",
    )
    for regime, figures in result.cold_start.items():
        table.add_row(
            regime,
            f"{figures.n:,}",
            _shown(figures.missed, ".1%"),
            _shown(figures.hr20, ".3f"),
            _shown(figures.hr100, ".3f"),
            _shown(figures.percentile, ".3f"),
            _shown(figures.audience_auc, ".3f"),
        )
    return table


def _users_table(result: Result) -> Table:
    users = result.users
    rankable = percentiles(users.rankable_ms)
    table = _table(f"Users: {users.new:,} had their first event in the summer", "", "")
    table.add_row(
        "first event accepted to rankable, in ms",
        ", ".join(f"{name} {_shown(value, ',.1f')}" for name, value in rankable.items()),
    )
    for known, rate in users.hr100_after.items():
        events = "1 event" if known == 1 else f"{known} events"
        table.add_row(
            f"next liked film in first 100, after {events}",
            f"{_shown(rate.hr100, '.3f')} of {rate.n:,} users",
        )
    table.add_row(
        "vectors read just before a rating",
        f"{users.read:,}, {users.stale:,} of them lacked an event of their user; "
        f"{users.waited:,} ratings waited for it, {users.longest_wait_ms:,.0f} ms at most",
    )
    asked = result.asked
    table.add_row(
        "was a language model asked about them",
        f"{sum(asked.values()):,} times: {_counts(asked)}",
    )
    declined = {name: n for name, n in result.preferences.items() if name not in asked}
    table.add_row("and why not", _counts(declined))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or not any(columns) else "right")
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _shown(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
