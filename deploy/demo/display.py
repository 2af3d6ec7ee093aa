"""Shows the board while the demo runs: a live page on a terminal, a line now and then elsewhere.

Always on stderr: stdout is for the result.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from deploy.demo.background import Background
from deploy.demo.board import Snapshot
from deploy.demo.summary import percentiles

_FRAMES_A_SECOND = 4
_LINE_SECONDS = 5.0


class LiveDisplay:
    """A page that redraws itself, as a context manager."""

    def __init__(self, console: Console, snapshot: Callable[[], Snapshot]) -> None:
        self._live = Live(
            get_renderable=lambda: page(snapshot()),
            console=console,
            refresh_per_second=_FRAMES_A_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


class LineDisplay(Background):
    """A line at every change of phase and every few seconds, as a context manager."""

    def __init__(self, console: Console, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__("display")
        self._console = console
        self._snapshot = snapshot

    def _run(self) -> None:
        phase, printed_at = "", 0.0
        while not self._ended.is_set():
            shown = self._snapshot()
            due = shown.elapsed_seconds - printed_at >= _LINE_SECONDS
            if shown.phase != phase or due:
                self._console.print(line(shown), highlight=False, soft_wrap=True, markup=False)
                phase, printed_at = shown.phase, shown.elapsed_seconds
            self._ended.wait(0.2)


def display(console: Console, snapshot: Callable[[], Snapshot]) -> LiveDisplay | LineDisplay:
    """Return the display that suits the console."""
    return (LiveDisplay if console.is_terminal else LineDisplay)(console, snapshot)


def line(shown: Snapshot) -> str:
    """Return the board in one line."""
    facts = [f"{shown.elapsed_seconds:5.1f} s  {shown.phase}"]
    if shown.detail:
        facts.append(shown.detail)
    if shown.to_send:
        sent = f"{shown.sent:,}/{shown.to_send:,} sent"
        facts.append(", ".join(filter(None, (_date(shown.season_ms), sent))))
    if any(shown.live.values()):
        facts.append("live " + ", ".join(f"{n:,} {stage}" for stage, n in shown.live.items() if n))
    for stage, values in shown.freshness_ms.items():
        if values:
            facts.append(f"{stage} p50 {percentiles(values)['p50']:.0f} ms")
    if shown.new_users:
        found = percentiles(shown.rankable_ms)
        facts.append(f"{shown.new_users:,} new users, p50 {found['p50']:.0f} ms")
    lag = sum(lane.lag for lane in shown.lanes)
    if shown.lanes:
        facts.append(f"lag {lag:,}")
    return "; ".join(facts)


def page(shown: Snapshot) -> RenderableType:
    """Return the board as a page."""
    parts: list[RenderableType] = [_phase(shown)]
    if shown.lanes:
        parts += ["", _lanes(shown)]
    if any(shown.live.values()):
        parts += ["", _figures(shown)]
    if shown.news:
        parts += ["", *(f"[dim]{_escaped(news)}[/dim]" for news in shown.news)]
    return Panel(
        Group(*parts),
        title="Freshet: the summer of 2013",
        subtitle=f"{shown.elapsed_seconds:.0f} s",
        padding=(0, 1),
    )


def _phase(shown: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    head = f"[bold]{shown.phase}[/bold]"
    if not shown.to_send:
        table.add_row(head, _escaped(shown.detail))
        return table
    table.add_row(
        head,
        ProgressBar(total=1.0, completed=shown.share_sent, width=30),
        _date(shown.season_ms),
        f"{shown.sent:,} of {shown.to_send:,} records sent",
        _escaped(shown.detail),
    )
    return table


def _lanes(shown: Snapshot) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("lane")
    table.add_column("state")
    for column in ("settled", "a second", "lag"):
        table.add_column(column, justify="right")
    for lane in shown.lanes:
        table.add_row(
            lane.lane,
            _escaped(lane.state),
            f"{lane.settled:,}",
            f"{lane.rate:,.0f}",
            f"{lane.lag:,}",
        )
    return table


def _figures(shown: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row("live films", ", ".join(f"{n:,} {stage}" for stage, n in shown.live.items()))
    for stage, values in shown.freshness_ms.items():
        if values:
            found = percentiles(values)
            table.add_row(
                f"freshness, {stage}", f"p50 {found['p50']:.0f} ms, p95 {found['p95']:.0f} ms"
            )
    if shown.user_events:
        table.add_row("users", _users(shown))
    table.add_row(
        "language model",
        f"{shown.calls:,} calls; saved: {shown.saved_fingerprint:,} by fingerprint,"
        f" {shown.saved_coalesced:,} by coalescing",
    )
    table.add_row("dead letters", f"{shown.refused:,}")
    return table


def _users(shown: Snapshot) -> str:
    sent = f"{shown.user_events:,} events sent"
    if not shown.new_users:
        return sent
    found = percentiles(shown.rankable_ms)
    return (
        f"{sent}; {shown.new_users:,} new users rankable after p50 {found['p50']:.0f} ms,"
        f" p95 {found['p95']:.0f} ms"
    )


def _date(at_ms: int) -> str:
    if not at_ms:
        return ""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment.day:2d} {moment:%B %Y}"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
