"""`freshet groups`: cut a catalogue into groups, put a cut to use, have them written about."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import load_settings, moment, print_json, stderr, stdout
from streams.cli.progress import progress_bar

if TYPE_CHECKING:
    from streams.represented_catalogue import Source
    from workers.grouping.make_groups import Method

app = typer.Typer(
    name="groups",
    help="Groups of items that share knowledge until there is knowledge of their own.",
    no_args_is_help=True,
)

_TOPIC = "topic"
_DEFAULT_GROUPS = 100
_DEFAULT_CAP = 79
_TITLES_SHOWN = 3

_Name = Annotated[str, typer.Argument(help="Name of the cut, e.g. films-2026-11.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command(
    epilog="Example: freshet groups build films-2 --catalog topic --groups 100 --from films"
)
def build(
    name: _Name,
    catalog: Annotated[
        str, typer.Option(help="JSONL file of items or events, or: topic (what is live).")
    ],
    method: Annotated[
        str, typer.Option(help="kmeans, or tree (incremental hierarchical clustering, then a cut).")
    ] = "kmeans",
    groups: Annotated[
        int | None,
        typer.Option(min=1, help=f"Groups that kmeans makes; {_DEFAULT_GROUPS} by default."),
    ] = None,
    cap: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Most members of a group of the tree; {_DEFAULT_CAP} by default."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Cut whose ids stay with groups of mostly the same members."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the tree.")] = 0,
    as_json: _Json = False,
) -> None:
    """Cut a catalogue into groups of similar items, by title and content alone.

    Needs no interactions and no knowledge: whatever a new item has from the start.
    """
    import asyncio

    from streams.groups_admin import build as run
    from workers.grouping.make_groups import Cut

    settings = load_settings()
    chosen = _method(method, groups, cap)
    with progress_bar() as progress:
        built = asyncio.run(
            run(
                settings,
                name,
                catalog=_source(catalog),
                cut=Cut(chosen, groups or _DEFAULT_GROUPS, cap or _DEFAULT_CAP, seed),
                old=from_,
                progress=progress,
            )
        )
    if built.degenerate and built.depth is not None:
        stderr().print(
            f"warning: the tree is {built.depth.mean:g} levels deep on average, {built.depth.max} "
            f"at most, for {built.depth.leaves} items: similar items chained up; try kmeans"
        )
    if as_json:
        print_json({"name": name, **asdict(built), "directory": str(built.directory)})
        return
    kept = f", {built.kept_ids} of them with the id of a group of {from_}" if from_ else ""
    typer.echo(
        f"{built.groups} groups of {built.members} items are in {built.directory} (largest "
        f"{built.largest}, {built.singletons} of one item){kept}; next: "
        f"freshet groups activate {name}"
    )


@app.command("list", epilog="Example: freshet groups list --json")
def list_(as_json: _Json = False) -> None:
    """List the cuts on disk and the one in use."""
    import asyncio

    from rich.table import Table

    from streams.groups_admin import list_groups

    found = asyncio.run(list_groups(load_settings()))
    if as_json:
        print_json({"cuts": [asdict(one) for one in found]})
        return
    table = Table(box=None, pad_edge=False)
    for name in ("cut", "of", "groups", "items", "largest", "in use", "on disk", "since"):
        table.add_column(name)
    for one in found:
        table.add_row(
            one.name,
            f"{one.kind.value}s",
            str(one.groups),
            str(one.members),
            str(one.largest),
            "yes" if one.is_active else "no",
            "yes" if one.on_disk else "no",
            "" if one.changed_at_ms is None else moment(one.changed_at_ms),
        )
    stdout().print(table)


@app.command(epilog="Example: freshet groups show films-2 films-2-17")
def show(
    name: _Name,
    group: Annotated[str | None, typer.Argument(help="Id of one group, e.g. films-2-17.")] = None,
    as_json: _Json = False,
) -> None:
    """Show the groups of a cut, or what a prompt about one of them tells.

    What was written about a group: freshet explain group:ID.
    """
    from rich.markup import escape

    from schemas.errors import ConfigurationError
    from workers.grouping.group_files import load_groups
    from workers.knowledge.titles import title_line

    cut = load_groups(load_settings().groups.dir, name)
    chosen = [one for one in cut.groups if group in (None, one.id)]
    if not chosen:
        raise ConfigurationError(f"groups {name}", f"none has the id {group}")
    if as_json:
        print_json(
            {
                "cut": name,
                "parts": cut.parts,
                "encoder_id": cut.encoder_id,
                "groups": [asdict(one) for one in chosen],
            }
        )
        return
    shown = None if group else _TITLES_SHOWN
    for one in chosen:
        titles = [title_line(entry).removeprefix("- ") for entry in one.exemplars[:shown]]
        glue = "\n  " if group else "; "
        lead = "\n  " if group else ": "
        stdout().print(escape(f"{one.id} ({one.size} items){lead}{glue.join(titles)}"))


@app.command(epilog="Example: freshet groups activate films-2")
def activate(name: _Name, as_json: _Json = False) -> None:
    """Let the lanes use a cut: new items that outrun the language model find their group in it."""
    import asyncio

    from streams.groups_admin import activate as run

    before = asyncio.run(run(load_settings(), name))
    if as_json:
        print_json({"name": name, "before": before})
    else:
        instead = f" instead of {before}" if before and before != name else ""
        typer.echo(f"{name} is in use{instead}; next: freshet groups request")


@app.command(epilog="Example: freshet groups request --dry-run")
def request(
    everything: Annotated[
        bool, typer.Option("--all", help="Also groups that are written about already.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: _Json = False,
) -> None:
    """Ask for knowledge about the groups in use, by the backlog, for rankers to read.

    Only about groups without any, or whose exemplars, prompt or model have changed.
    """
    import asyncio

    from streams.groups_admin import request as run

    with progress_bar() as progress:
        asked = asyncio.run(
            run(load_settings(), everything=everything, dry_run=dry_run, progress=progress)
        )
    if as_json:
        print_json(asdict(asked))
        return
    verb = "would be requested" if dry_run else "requested"
    typer.echo(f"{asked.requested} groups of {asked.name} {verb}, {asked.current} need nothing")


@app.command(epilog="Example: freshet groups cut tree.tsv --cap 79 --out id2group.json")
def cut(
    tree: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="TREE.tsv",
            help="A node a line: id, parent (None for the root), leaf name, leaf count.",
        ),
    ],
    cap: Annotated[int, typer.Option(min=1, help="Most leaves of a group.")],
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to write; standard output by default.")
    ] = None,
) -> None:
    """Cut a tree of any clusterer into groups of at most so many leaves: {leaf: group number}.

    The largest group is number 1. Of as large ones, the one whose parent is larger comes first.
    """
    import orjson

    from schemas.errors import ConfigurationError
    from workers.grouping.cut import group_numbers
    from workers.grouping.depth import depth_of
    from workers.grouping.tree import read_tree

    try:
        with tree.open(encoding="utf-8") as lines:
            read = read_tree(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("tree", f"{tree}: {error}") from error
    numbers = group_numbers(read, cap)
    data = orjson.dumps({name: numbers[name] for name in sorted(numbers, key=_natural)}) + b"\n"
    if out is None:
        typer.echo(data.decode(), nl=False)
    else:
        out.write_bytes(data)
    depth = depth_of(read)
    stderr().print(
        f"{max(numbers.values())} groups of {depth.leaves} leaves, "
        f"{depth.mean:g} levels deep on average, {depth.max} at most"
    )


def _natural(name: str) -> tuple[int, int, str]:
    """Order ids as people do: 2 before 10, numbers before names."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _method(text: str, groups: int | None, cap: int | None) -> "Method":
    from schemas.errors import ConfigurationError

    match text:
        case "kmeans":
            if cap is not None:
                raise ConfigurationError("--cap", "only a tree is cut; kmeans takes --groups")
            return text
        case "tree":
            if groups is not None:
                raise ConfigurationError("--groups", "only for kmeans; a tree takes --cap")
            return text
        case _:
            raise ConfigurationError("--method", f"{text!r} is none of kmeans, tree")


def _source(text: str) -> "Source":
    from schemas.errors import ConfigurationError

    if text == _TOPIC:
        return "topic"
    path = Path(text)
    if not path.is_file():
        raise ConfigurationError("FILE", f"{path} is no file (and not: topic)")
    return path
