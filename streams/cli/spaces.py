"""`freshet spaces`: make the raw one, list them, fit one, create it, activate it, retire it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import load_settings, moment, print_json, seconds_of, stderr, stdout
from streams.cli.progress import progress_bar

if TYPE_CHECKING:
    from schemas.entities import EntityKind
    from streams.represented_catalogue import Source
    from streams.space_fitting import Users

app = typer.Typer(
    name="spaces", help="Sets of vectors: fit, create, activate and retire.", no_args_is_help=True
)

_TOPIC = "topic"
_DEFAULT_DIM = 256

_Name = Annotated[str, typer.Argument(help="Name of the space, e.g. parts-pca-2.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("list", epilog="Example: freshet spaces list --json")
def list_(as_json: _Json = False) -> None:
    """List the spaces on disk and in use, how many vectors each has, and which are active."""
    import asyncio

    from rich.table import Table

    from streams.spaces_admin import list_spaces

    settings = load_settings()
    with stderr().status("counting vectors ..."):
        spaces = asyncio.run(list_spaces(settings))
    if as_json:
        print_json({"spaces": [asdict(space) for space in spaces]})
        return
    table = Table(box=None, pad_edge=False)
    for name in ("space", "state", "active for", "vectors", "dim", "written by", "on disk"):
        table.add_column(name)
    table.add_column("changed")
    for space in spaces:
        table.add_row(
            space.name,
            "not created" if space.state is None else space.state.value,
            ", ".join(kind.value for kind in space.active_for),
            ", ".join(f"{count} {kind.value}s" for kind, count in space.vectors.items()),
            str(space.dim),
            space.writer,
            "yes" if space.on_disk else "no",
            "" if space.changed_at_ms is None else moment(space.changed_at_ms),
        )
    stdout().print(table)


@app.command(epilog="Example: freshet spaces init")
def init(as_json: _Json = False) -> None:
    """Make the raw space and put it to use, so that lanes can take in a catalogue.

    Then fit a space on what they made of it (--catalog topic --knowledge topic), create it
    with --active, run freshet rebuild, and activate it: nothing is encoded twice.
    """
    import asyncio

    from streams.raw_space import init as run

    with stderr().status("loading the encoder ..."):
        record = asyncio.run(run(load_settings()))
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        typer.echo(f"{record.space.name} is {record.state.value}, written by lane {record.writer}")


@app.command(epilog="Example: freshet spaces fit parts-pca --catalog films.jsonl --knowledge topic")
def fit(
    name: _Name,
    catalog: Annotated[
        str, typer.Option(help="JSONL file of items or events, or: topic (what is live).")
    ],
    knowledge: Annotated[
        str | None,
        typer.Option(help="JSONL file of knowledge, or: topic. Without it, content alone."),
    ] = None,
    dim: Annotated[int, typer.Option(min=1, max=65_535, help="Dimensions.")] = _DEFAULT_DIM,
    users: Annotated[
        str,
        typer.Option(help="What user vectors are made from: histories, knowledge, or none."),
    ] = "histories",
    as_json: _Json = False,
) -> None:
    """Fit a parts-pca space on a catalogue and put it into the spaces directory.

    Needs no interactions. Makes the raw space too, if there is none yet.
    """
    import asyncio

    from streams.spaces_admin import fit as run

    settings = load_settings()
    with progress_bar() as progress:
        directory = asyncio.run(
            run(
                settings,
                name=name,
                catalog=_source(catalog),
                knowledge=None if knowledge is None else _source(knowledge),
                dim=dim,
                users=_users(users),
                progress=progress,
            )
        )
    if as_json:
        print_json({"space": name, "directory": str(directory)})
    else:
        typer.echo(f"{name} is in {directory}; next: freshet spaces create {name}")


@app.command(epilog="Example: freshet spaces create parts-pca-2")
def create(
    name: _Name,
    active: Annotated[
        bool,
        typer.Option("--active", help="The encode lane writes it from now on; no backfill."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Put a fitted space to use.

    The first space is active at once. Later ones backfill by a lane of their own: start it with
    freshet lane encode.NAME, then activate the space.
    """
    import asyncio

    from streams.spaces_admin import create as run

    record = asyncio.run(run(load_settings(), name, active=active))
    if as_json:
        print_json(record.model_dump(mode="json"))
    elif record.writer == "encode":
        typer.echo(f"{name} is {record.state.value}, written by lane encode")
    else:
        typer.echo(
            f"{name} is {record.state.value}; run: freshet topics apply --lane {record.writer}, "
            f"freshet lane {record.writer}, then: freshet spaces activate {name}"
        )


@app.command(epilog="Example: freshet spaces activate parts-pca-2 --kind item")
def activate(
    name: _Name,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="item, user or group (repeatable); all it has by default."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Let rankers read a space; refused below 99.9 % of the vectors of the one before it."""
    import asyncio

    from streams.spaces_admin import activate as run

    kinds = None if kind is None else [_kind(each) for each in kind]
    flips = asyncio.run(run(load_settings(), name, kinds))
    if as_json:
        print_json({"space": name, "activated": [asdict(flip) for flip in flips]})
        return
    for flip in flips:
        before = f" instead of {flip.before}" if flip.before else ""
        typer.echo(
            f"{name} is active for {flip.kind.value}s{before} "
            f"({flip.coverage.covered} of {flip.coverage.total} covered)"
        )


@app.command(epilog="Example: freshet spaces retire parts-pca")
def retire(
    name: _Name,
    after: Annotated[
        str, typer.Option(help="How long rankers may still read it, e.g. 10m.")
    ] = "10m",
    as_json: _Json = False,
) -> None:
    """Stop writing a space, wait, then delete its vectors."""
    import asyncio

    from streams.spaces_admin import retire as run

    settings = load_settings()
    seconds = seconds_of(after)
    with progress_bar() as progress:
        deleted = asyncio.run(run(settings, name, after_seconds=seconds, progress=progress))
    if as_json:
        print_json({"space": name, "deleted": deleted})
    else:
        typer.echo(f"{name} is retired; {deleted} vectors deleted")


def _source(text: str) -> "Source":
    from schemas.errors import ConfigurationError

    if text == _TOPIC:
        return "topic"
    path = Path(text)
    if not path.is_file():
        raise ConfigurationError("FILE", f"{path} is no file (and not: topic)")
    return path


def _users(text: str) -> "Users":
    from schemas.errors import ConfigurationError

    match text:
        case "histories" | "knowledge" | "none":
            return text
        case _:
            raise ConfigurationError("--users", f"{text!r} is none of histories, knowledge, none")


def _kind(text: str) -> "EntityKind":
    from schemas.entities import EntityKind
    from schemas.errors import ConfigurationError

    try:
        return EntityKind(text)
    except ValueError as error:
        known = ", ".join(kind.value for kind in EntityKind)
        raise ConfigurationError("--kind", f"{text!r} is none of {known}") from error
