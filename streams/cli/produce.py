"""`freshet produce`: a JSONL file of events or items to their topics, nothing lost silently."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings, print_json, stderr

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from schemas.behaviour import BehaviourEvent
    from schemas.events import CatalogEvent
    from streams.event_lines import ItemMapping, LineLimits
    from streams.producers import BehaviourProducer, CatalogProducer, FlushReport
    from streams.settings import Settings

_SHOWN_PROBLEMS = 20
_FLUSH_SECONDS = 120.0
_CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Outcome:
    lines: int = 0
    delivered: int = 0
    invalid: int = 0
    undelivered: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(text)
            fail(text)

    def count(self, report: "FlushReport[CatalogEvent | BehaviourEvent]") -> None:
        self.delivered += report.delivered
        self.undelivered += len(report.failed)
        for failed in report.failed:
            self.problem(f"{_named(failed.event)}: {failed.error}")


class _Outlets:
    """A producer for each topic that the file has lines for, opened with its first line."""

    def __init__(
        self, settings: "Settings", limits: "LineLimits", source: str, batch_events: int
    ) -> None:
        self._settings = settings.kafka
        self._limits = limits
        self._source = source
        self._batch_events = batch_events
        self._catalog: CatalogProducer | None = None
        self._behaviour: BehaviourProducer | None = None

    def send(self, event: "CatalogEvent | BehaviourEvent") -> None:
        from schemas.events import ItemRemoved, ItemUpserted
        from streams.kafka_clients import KafkaConnection
        from streams.producers import BehaviourProducer, CatalogProducer

        connection = KafkaConnection.of(self._settings)
        prefix = self._settings.topic_prefix
        if isinstance(event, ItemUpserted | ItemRemoved):
            if self._catalog is None:
                self._catalog = CatalogProducer(
                    connection,
                    topic_prefix=prefix,
                    source=self._source,
                    limits=self._limits.catalog,
                )
            self._catalog.send(event)
            return
        if self._behaviour is None:
            self._behaviour = BehaviourProducer(
                connection,
                topic_prefix=prefix,
                source=self._source,
                limits=self._limits.behaviour,
                batch_events=self._batch_events,
            )
        self._behaviour.send(event)

    def flush(self, outcome: _Outcome) -> None:
        for producer in self._opened:
            outcome.count(producer.flush(_FLUSH_SECONDS))

    def close(self, outcome: _Outcome) -> None:
        for producer in self._opened:
            outcome.count(producer.close(_CLOSE_SECONDS))

    @property
    def _opened(self) -> "Iterator[CatalogProducer | BehaviourProducer]":
        return (one for one in (self._catalog, self._behaviour) if one is not None)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: freshet produce films.jsonl --id-field film_id --version-field updated_at"
    )(produce)


def produce(
    file: Annotated[Path, typer.Argument(help="JSONL file; - for standard input.")],
    version_field: Annotated[
        str | None,
        typer.Option(help="Lines are plain items, and this field is their version."),
    ] = None,
    id_field: Annotated[str, typer.Option(help="The field with a plain item's id.")] = "item_id",
    time_field: Annotated[
        str | None, typer.Option(help="The field with the time of a plain item (ISO 8601).")
    ] = None,
    batch_events: Annotated[
        int,
        typer.Option(min=1, help="Behaviour events of one partition in a record, at most 1,000."),
    ] = 100,
    source: Annotated[str, typer.Option(help="CloudEvents source.")] = "/freshet/produce",
    check: Annotated[bool, typer.Option("--check", help="Only validate; send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as one JSON line.")] = False,
) -> None:
    """Send the events in FILE, one JSON object a line.

    A line is a whole event, like `{"type": "item.upserted", "item_id": "42", "version": 7,
    "item": {"title": "Heat"}}` or `{"type": "user.behaviour", "user_id": "7", "event_id": "e1",
    "item_id": "42", "action": "rate", "value": 9}`, or with --version-field a plain item. A file
    may mix them. Invalid lines are named with their number and left out; the exit code is 1 if any
    line was invalid or not delivered.
    """
    from schemas.events import DecodeLimits
    from streams.event_lines import ItemMapping, LineLimits

    settings = load_settings()
    limits = LineLimits(
        DecodeLimits(
            max_bytes=settings.items.max_record_bytes,
            max_clock_skew_ms=round(settings.items.max_clock_skew_seconds * 1000),
            version_from_record_timestamp=settings.items.version_from == "record_timestamp",
        ),
        settings.behaviour.limits,
    )
    outcome = _Outcome()
    started = time.monotonic()
    with ExitStack() as stack:
        lines = stack.enter_context(_opened(file))
        outlets = None if check else _Outlets(settings, limits, source, batch_events)
        if outlets is not None:
            stack.callback(outlets.close, outcome)
        mapping = ItemMapping(id_field, version_field, time_field)
        _send_all(lines, mapping, limits, outlets, outcome)
        if outlets is not None:
            outlets.flush(outcome)
    _report(outcome, time.monotonic() - started, check=check, as_json=as_json)
    exit_with(FAILED if outcome.invalid or outcome.undelivered else 0)


def _send_all(
    lines: Iterable[bytes],
    mapping: "ItemMapping",
    limits: "LineLimits",
    outlets: _Outlets | None,
    outcome: _Outcome,
) -> None:
    from schemas.errors import InvalidInput, Transient
    from streams.event_lines import event_of_line

    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        outcome.lines += 1
        now_ms = time.time_ns() // 1_000_000
        try:
            event = event_of_line(line, mapping, now_ms=now_ms, limits=limits)
            if outlets is not None:
                outlets.send(event)
        except InvalidInput as error:
            outcome.invalid += 1
            outcome.problem(f"line {number}: {error}")
        except Transient:
            fail(f"stopped at line {number}: it and what follows was not sent")
            raise


def _named(event: "CatalogEvent | BehaviourEvent") -> str:
    from schemas.behaviour import UserBehaviour, UserErased

    match event:
        case UserErased():
            return f"erasure of user:{event.user_id}"
        case UserBehaviour():
            return f"event {event.event_id}"
        case _:
            return f"item {event.item_id} version {event.version}"


def _report(outcome: _Outcome, seconds: float, *, check: bool, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(outcome), "seconds": round(seconds, 3)})
        return
    hidden = outcome.invalid + outcome.undelivered - len(outcome.problems)
    if hidden > 0:
        fail(f"{hidden} more problems not shown")
    done = (
        f"{outcome.lines - outcome.invalid} valid"
        if check
        else f"{outcome.delivered} delivered, {outcome.undelivered} not delivered"
    )
    typer.echo(f"{outcome.lines} lines: {done}, {outcome.invalid} invalid, {seconds:.1f} s")


@contextmanager
def _opened(file: Path) -> Iterator[Iterator[bytes]]:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from schemas.errors import ConfigurationError

    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], TimeElapsedColumn())
    with ExitStack() as stack:
        handle: BinaryIO
        total: int | None = None
        if str(file) == "-":
            handle = sys.stdin.buffer
        else:
            try:
                handle = stack.enter_context(file.open("rb"))
                total = file.stat().st_size
            except OSError as error:
                raise ConfigurationError("FILE", f"{file}: {error.strerror}") from error
        progress = stack.enter_context(
            Progress(
                *columns,
                TextColumn("{task.fields[lines]} lines"),
                console=stderr(),
                transient=True,
                disable=not sys.stderr.isatty(),
            )
        )
        task = progress.add_task("producing", total=total, lines=0)
        yield _counted(handle, progress, task)


def _counted(handle: BinaryIO, progress: "Progress", task: "TaskID") -> Iterator[bytes]:
    passed, lines = 0, 0
    for line in handle:
        passed += len(line)
        lines += 1
        if lines % 100 == 1:
            progress.update(task, completed=passed, lines=lines)
        yield line
    progress.update(task, completed=passed, lines=lines)
