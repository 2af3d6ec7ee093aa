"""`freshet lag`: how far each lane is behind, in records and seconds."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings, print_json, spelled, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from streams.lag import LagReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: freshet lag --max-seconds 60 --json")(lag)


def lag(
    lane: Annotated[
        list[str] | None, typer.Option("--lane", help="Only this lane (repeatable).")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look.")] = False,
    max_records: Annotated[
        int | None, typer.Option(min=0, help="Exit code 1 when a lane is further behind.")
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Exit code 1 when a lane's oldest open record is older."),
    ] = None,
) -> None:
    """Show the lag of every lane, topic and partition, asked of the broker: no worker need run.

    Records are end offset minus committed offset; seconds are the age of the oldest record that
    is not settled.
    """
    from streams.lag import lag_reader

    settings = load_settings()
    with lag_reader(settings.kafka) as reader:
        if watch:
            try:
                _watch(lambda: reader.read(lane), interval, as_json=as_json)
            except KeyboardInterrupt:
                exit_with(0)
        report = reader.read(lane)
    if as_json:
        print_json(report.to_json())
    else:
        stdout().print(_table(report))
    late = report.over(max_records, max_seconds)
    for each in late:
        fail(f"lane {each.lane} is {each.records} records, {spelled(each.seconds)} behind")
    exit_with(FAILED if late else 0)


def _watch(read: Callable[[], "LagReport"], interval: float, *, as_json: bool) -> None:
    from rich.live import Live

    if as_json:
        while True:
            print_json(read().to_json())
            time.sleep(interval)
    with Live(console=stdout(), auto_refresh=False) as live:
        while True:
            live.update(_table(read()), refresh=True)
            time.sleep(interval)


def _table(report: "LagReport") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("lane", "topic", "partition"):
        table.add_column(name)
    for name in ("end", "committed", "records", "oldest"):
        table.add_column(name, justify="right")
    for lane in report.by_lane():
        table.add_row(lane.lane, "", "", "", "", str(lane.records), spelled(lane.seconds))
        for row in report.partitions:
            if row.lane == lane.lane and row.records:
                committed = "never" if row.committed is None else str(row.committed)
                table.add_row(
                    "",
                    row.topic,
                    str(row.partition),
                    str(row.end),
                    committed,
                    str(row.records),
                    spelled(row.seconds),
                )
    return table
