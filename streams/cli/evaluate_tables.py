"""What `freshet evaluate` prints for people."""

from typing import TYPE_CHECKING

import typer

from streams.cli.output import stdout

if TYPE_CHECKING:
    from streams.evaluation.cold_start_run import ColdStartResult
    from streams.evaluation.staleness_run import StalenessResult


def show_cold_start(result: "ColdStartResult") -> None:
    """Print the figures of a cold-start evaluation."""
    from rich.table import Table

    scores = result.scores
    k = f"@{scores.k}"
    table = Table(box=None, pad_edge=False)
    for name in ("figure", "value", "95 % interval"):
        table.add_column(name)
    for name, label, value in (
        ("recall", f"recall{k}", scores.recall),
        ("ndcg", f"ndcg{k}", scores.ndcg),
        ("hr", f"hr{k}", scores.hr),
        ("percentile", "percentile", scores.percentile),
        ("audience_auc", "audience AUC", scores.audience_auc),
    ):
        interval = scores.intervals[name]
        table.add_row(
            label,
            _digits(value),
            "" if interval is None else f"{interval.low:.3f} - {interval.high:.3f}",
        )
    stdout().print(table)
    typer.echo(
        f"{scores.n_items} candidates, {scores.n_users} users, {scores.audiences} audiences; "
        f"{scores.without_vector} candidates without a vector"
    )
    for title, rows in (
        (
            "items by training interactions",
            [
                (name, one.n, f"hr{k} {_digits(one.hr)}  percentile {_digits(one.percentile)}")
                for name, one in scores.by_item.items()
            ],
        ),
        (
            "users by training interactions",
            [
                (name, one.n, f"recall{k} {_digits(one.recall)}  ndcg{k} {_digits(one.ndcg)}")
                for name, one in scores.by_user.items()
            ],
        ),
    ):
        typer.echo(f"{title}:")
        for name, n, figures in rows:
            typer.echo(f"  {name:<5} n {n:<7} {figures if n else ''}".rstrip())
    typer.echo(
        f"shown: {_digits(scores.head_item_share)} to head items, "
        f"{_digits(scores.top_fifth_share)} to the most shown fifth of the candidates"
    )
    for name, fact in result.facts.items():
        typer.echo(f"{name}: {fact:.0f}" if isinstance(fact, float) else f"{name}: {fact}")


def show_staleness(result: "StalenessResult") -> None:
    """Print a line a regime."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("items", "users"):
        table.add_column(name)
    for name in ("new items: n", "missed", "hr@20", "hr@100", "percentile"):
        table.add_column(name, justify="right")
    for name in ("all items: n", "missed", "hr@20", "hr@100", "percentile"):
        table.add_column(name, justify="right")
    for (items, users), figures in result.figures.items():
        cells = [
            cell
            for hits in (figures.new, figures.all)
            for cell in (
                str(hits.n),
                *map(_digits, (hits.missed, hits.hr20, hits.hr100, hits.percentile)),
            )
        ]
        table.add_row(items, users, *cells)
    stdout().print(table)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
