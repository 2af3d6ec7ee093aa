"""`freshet dead-letters`: look at what a lane could not use, and send it in again."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import load_settings, moment, print_json, seconds_of, stdout

if TYPE_CHECKING:
    from schemas.reasons import Reason
    from streams.dead_letters import StoredLetter

app = typer.Typer(
    name="dead-letters",
    help="Look at the records a lane could not use; send them in again.",
    no_args_is_help=True,
)

_Lane = Annotated[str, typer.Argument(help="items, knowledge, knowledge-backlog, encode, ...")]
_ReasonOption = Annotated[str | None, typer.Option(help="Only this reason, e.g. not_json.")]
_Json = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]

_SHOWN_BYTES = 60


@app.command("list", epilog="Example: freshet dead-letters list items --reason bad_version -n 5")
def list_(
    lane: _Lane,
    newest: Annotated[int, typer.Option("-n", "--newest", min=1, help="How many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    reason: _ReasonOption = None,
    since: Annotated[
        str | None, typer.Option(help="Only those not older than this, e.g. 12h or 3d.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """List dead letters, oldest first. JSON holds the original bytes in base64."""
    from streams.dead_letters import list_letters

    settings = load_settings()
    now_ms = time.time_ns() // 1_000_000
    letters = list_letters(
        settings.kafka,
        lane,
        newest=None if every else newest,
        reason=_reason(reason),
        since_ms=None if since is None else now_ms - round(seconds_of(since) * 1000),
    )
    if as_json:
        for letter in letters:
            print_json(_as_json(letter))
        return
    _print_table(letters)


@app.command(epilog="Example: freshet dead-letters replay items --reason fails_alone --limit 100")
def replay(
    lane: _Lane,
    reason: _ReasonOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; send nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were replayed before.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Send dead letters back to the topic they came from, oldest first, each once.

    Key, value and headers are the original's. Letters that hold only the head of a too large
    record are refused and counted.
    """
    from streams import dead_letters

    settings = load_settings()
    report = dead_letters.replay(
        settings.kafka,
        lane,
        reason=_reason(reason),
        limit=limit,
        dry_run=dry_run,
        again=again,
    )
    if as_json:
        print_json(asdict(report))
        return
    verb = "would replay" if dry_run else "replayed"
    typer.echo(f"{verb} {report.replayed} letters")
    for topic, count in sorted(report.by_topic.items()):
        typer.echo(f"  {count} to {topic}")
    for name, count in sorted(report.by_reason.items()):
        typer.echo(f"  {count} that were {name}")
    if report.refused:
        typer.echo(f"refused {report.refused}: only the head of the record was kept")
    if report.foreign:
        typer.echo(f"passed over {report.foreign} records that are no dead letters")


def _reason(text: str | None) -> "Reason | None":
    from schemas.errors import ConfigurationError
    from schemas.reasons import Reason

    if text is None:
        return None
    try:
        return Reason(text)
    except ValueError as error:
        known = ", ".join(reason.value for reason in Reason)
        raise ConfigurationError("--reason", f"{text!r} is none of {known}") from error


def _print_table(letters: "list[StoredLetter]") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("at", "offset", "reason", "from", "key", "detail"):
        table.add_column(name, overflow="fold")
    for stored in letters:
        letter = stored.letter
        place = f"{stored.partition}/{stored.offset}"
        if letter is None:
            table.add_row(moment(stored.timestamp_ms), place, "(no dead letter)", "", "", "")
            continue
        table.add_row(
            moment(stored.timestamp_ms),
            place,
            letter.reason.value,
            f"{letter.topic}/{letter.partition}/{letter.offset}",
            escape(_text(letter.key)),
            escape(letter.detail),
        )
    stdout().print(table)
    typer.echo(f"{len(letters)} letters")


def _text(data: bytes | None) -> str:
    return "null" if data is None else data[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")


def _as_json(stored: "StoredLetter") -> dict[str, object]:
    from base64 import b64encode

    def encoded(data: bytes | None) -> str | None:
        return None if data is None else b64encode(data).decode()

    place: dict[str, object] = {
        "partition": stored.partition,
        "offset": stored.offset,
        "at_ms": stored.timestamp_ms,
    }
    letter = stored.letter
    if letter is None:
        return place | {"reason": None}
    return place | {
        "reason": letter.reason.value,
        "detail": letter.detail,
        "stage": letter.stage,
        "attempts": letter.attempts,
        "first_seen_ms": letter.first_seen_ms,
        "source": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "group": letter.group,
        },
        "original_bytes": letter.original_bytes,
        "original_digest": letter.original_digest,
        "key": encoded(letter.key),
        "value": encoded(letter.value),
        "headers": [[name, encoded(data)] for name, data in letter.headers],
    }
