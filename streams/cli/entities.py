"""`freshet get` and `freshet explain`: what rankers read of an entity, and how it came about."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings, moment, print_json, spelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.explain import Explanation
    from streams.explain_user import UserFacts

_Key = Annotated[str, typer.Argument(help="item:42, user:7 or group:13.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]

_SHOWN_VALUES = 8


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: freshet get item:42 --json")(get)
    app.command(epilog="Example: freshet explain item:42")(explain)


def get(key: _Key, as_json: _Json = False) -> None:
    """Show the live vector of an entity, read as rankers read it; exit code 1 if there is none."""
    from schemas.entities import EntityKey, Stage
    from workers.live.live_vectors import LiveVectors

    entity = EntityKey.parse(key)
    redis = load_settings().redis
    with (
        LiveVectors(
            redis.url.get_secret_value(),
            key_prefix=redis.key_prefix,
            timeout_seconds=redis.timeout_seconds,
            ssl_cafile=redis.ssl_cafile,
        ) as live,
        live.pin() as view,
    ):
        got = view.get([str(entity)])
        confirmed = int(live.confirmed_versions([str(entity)])[0])
    found = bool(got.found[0])
    facts: dict[str, object] = {
        "key": str(entity),
        "found": found,
        "space": got.space,
        "dim": int(got.values.shape[1]),
        "stage": Stage(int(got.stages[0])).name.lower(),
        "rev": int(got.revs[0]),
        "content_version": int(got.content_versions[0]),
        "factors_version": int(got.factors_versions[0]),
        "confirmed_version": confirmed,
        "event_time_ms": int(got.event_times_ms[0]),
        "written_at_ms": int(got.written_at_ms[0]),
        "age_ms": int(got.ages_ms[0]),
    }
    if as_json:
        print_json(facts | {"vector": [float(value) for value in got.values[0]] if found else None})
    elif found:
        first = " ".join(f"{value:.4f}" for value in got.values[0][:_SHOWN_VALUES])
        typer.echo(
            f"{entity}: {facts['stage']} vector in {got.space} ({facts['dim']} values: {first} ...)"
        )
        typer.echo(
            f"  content version {facts['content_version']}, knowledge version "
            f"{_or_none(int(got.factors_versions[0]))}, newest confirmed {_or_none(confirmed)}"
        )
        typer.echo(
            f"  happened {moment(int(got.event_times_ms[0]))}, "
            f"written {moment(int(got.written_at_ms[0]))}, "
            f"{spelled(int(got.ages_ms[0]) / 1000)} ago (rev {facts['rev']})"
        )
    else:
        fail(f"{entity} has no vector in {got.space}; try: freshet explain {entity}")
    exit_with(0 if found else FAILED)


def explain(key: _Key, as_json: _Json = False) -> None:
    """Show what was received of an entity, when, and what became of it.

    Registers and versions, texts and fingerprints, who wrote the knowledge, the vectors, and the
    last outcomes with the reason why a step was skipped or rejected; of a user also the history and
    why there was, or was no, call of the language model. Exit code 1 if nothing is known.
    """
    import asyncio

    from schemas.entities import EntityKey
    from streams.explain import explain_entity

    entity = EntityKey.parse(key)
    explanation = asyncio.run(explain_entity(load_settings(), entity))
    if as_json:
        print_json(explanation.to_json())
    else:
        _print(explanation)
    exit_with(0 if explanation.is_known else FAILED)


def _print(told: "Explanation") -> None:
    from schemas.history import NEVER

    now_ms = time.time_ns() // 1_000_000

    def ago(at_ms: int) -> str:
        return f"{moment(at_ms)} ({spelled(max(0, now_ms - at_ms) / 1000)} ago)"

    erased = "" if told.erased_at_ms == NEVER else f" (erased as of {ago(told.erased_at_ms)})"
    typer.echo(f"{told.key}: {told.summary}{erased}")
    if told.user is not None:
        _print_user(told.user, ago)
    if told.seen is not None:
        what = "removal" if told.seen.removed else f"content {told.seen.fingerprint}"
        typer.echo(f"received  version {told.seen.version}, {what}, {ago(told.seen.at_ms)}")
    if told.document is not None:
        typer.echo(f"document  rev {told.rev}, written {ago(told.written_at_ms)}")
    for line in told.register_lines():
        typer.echo(f"register  {line}")
    for part, text, fingerprint in told.texts:
        typer.echo(f"text      {part} [{fingerprint or 'missing'}] {text or ''}".rstrip())
    for space, header in told.vectors.items():
        active = " (active)" if space == told.active_space else ""
        typer.echo(
            f"vector    {space}{active}: rev {header.rev}, content {header.content_version}, "
            f"knowledge {_or_none(header.factors_version)}, written {ago(header.written_at_ms)}"
        )
    for entry in told.traces:
        version = "" if entry.version is None else f" version {entry.version}"
        why = ": ".join(part for part in (entry.reason, entry.detail) if part)
        typer.echo(
            f"outcome   {moment(entry.at_ms)} {entry.lane}{version} {entry.outcome}"
            + (f" ({why})" if why else "")
        )


def _print_user(user: "UserFacts", ago: "Callable[[int], str]") -> None:
    history = user.history
    if history is not None and history.events:
        full = user.full_minutes
        limited = (
            f"; {full} minutes reached the limit of {user.bounds.max_per_minute} a minute"
            if full
            else ""
        )
        typer.echo(
            f"history   rev {history.rev}, {len(history.events)} of at most "
            f"{user.bounds.max_events} interactions, newest {ago(history.newest_ms)}{limited}"
        )
    for event in reversed(user.newest):
        value = "" if event.value is None else f" {event.value:g}"
        typer.echo(f"did       {moment(event.at_ms)} {event.action} item:{event.item}{value}")
    for line in user.gate_lines():
        typer.echo(f"gate      {line}")


def _or_none(version: int) -> str:
    return "none" if version < 0 else str(version)
