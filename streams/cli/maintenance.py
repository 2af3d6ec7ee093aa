"""`freshet refresh`, `sweep`, `forget`, `audit` and `rebuild`: what operators start by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings, print_json, stderr

_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only; change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: freshet refresh --where prompt!=current --dry-run")(refresh)
    app.command(epilog="Example: freshet sweep --dry-run")(sweep)
    app.command(epilog="Example: freshet forget item:42")(forget)
    app.command(epilog="Example: freshet audit --share 0.05 --repair")(audit)
    app.command(epilog="Example: freshet rebuild")(rebuild)


def refresh(
    where: Annotated[
        list[str],
        typer.Option(
            help="prompt!=ID, model!=ID or age>30d; ID may be current. Repeat: any is enough."
        ),
    ],
    dry_run: _DryRun = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many items.")] = None,
    as_json: _Json = False,
) -> None:
    """Have knowledge written anew: fills the backlog from `entities`.

    Items without knowledge of their own meet every condition. --dry-run counts the items and
    estimates the tokens.
    """
    import asyncio

    from streams.maintenance.refresh import refresh as run

    settings = load_settings()
    with _progress("reading entities") as on_progress:
        report = asyncio.run(
            run(settings, where, dry_run=dry_run, limit=limit, on_progress=on_progress)
        )
    if as_json:
        print_json(asdict(report))
        return
    verb = "would ask" if dry_run else "asked"
    typer.echo(
        f"{verb} for knowledge about {report.selected} of {report.looked_at} entities, "
        f"about {report.tokens} tokens"
    )


def sweep(dry_run: _DryRun = False, as_json: _Json = False) -> None:
    """Delete for good what was removed so long ago (31 days) that nothing can bring it back.

    Histories of users who were idle for FRESHET_BEHAVIOUR__IDLE_DAYS go, too.
    """
    import asyncio

    from streams.maintenance.sweep import sweep as run

    settings = load_settings()
    with _progress("reading entities") as on_progress:
        report = asyncio.run(run(settings, dry_run=dry_run, on_progress=on_progress))
    if as_json:
        print_json(asdict(report))
        return
    verb = "would sweep" if dry_run else "swept"
    typer.echo(
        f"{verb} {report.swept} removed entities; {report.kept} are too young, "
        f"{report.changed} changed meanwhile"
    )
    users = report.histories
    typer.echo(
        f"{verb} {users.idle} idle histories and {users.marks} marks of erased users; "
        f"{users.changed} changed meanwhile"
    )


def forget(
    key: Annotated[str, typer.Argument(help="item:42")],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for what is on its way.")
    ] = 60.0,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait: the item may be poisoned again.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Let an item begin anew, for example after a version that was far too great.

    Stop the item at its source first. The command waits until all lanes (they have to run) have
    settled what is on its way, then forgets the item; send it again afterwards. Knowledge lanes
    may still remember its last knowledge for five minutes.
    """
    import asyncio

    from schemas.entities import EntityKey
    from streams.maintenance.forget import forget as run

    entity = EntityKey.parse(key)
    settings = load_settings()
    with stderr().status("forgetting ...") as status:
        report = asyncio.run(
            run(
                settings,
                entity,
                wait_seconds=wait,
                force=force,
                on_wait=lambda lane, n: status.update(f"waiting for lane {lane}: {n} records"),
            )
        )
    if as_json:
        print_json(asdict(report) | {"key": str(report.key)})
    elif report.came_back:
        fail(f"{entity} was forgotten, but an event about it came meanwhile")
    elif report.was_known:
        typer.echo(f"{entity} is forgotten (rev {report.rev}); send it again")
    else:
        typer.echo(f"{entity} was not known")
    exit_with(FAILED if report.came_back else 0)


def audit(
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of all entities, by a hash of their key.")
    ] = 1.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what differs, through the lanes.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Compare Redis with the `entities` and `histories` topics; exit code 1 if anything differs."""
    import asyncio

    from streams.maintenance.audit import audit as run

    settings = load_settings()
    with _progress("comparing partitions") as on_progress:
        report = asyncio.run(run(settings, share=share, repair=repair, on_progress=on_progress))
    if as_json:
        differences = [
            asdict(difference) | {"key": str(difference.key)} for difference in report.differences
        ]
        print_json(
            {
                "compared": report.compared,
                "differences": differences,
                "repaired": report.repaired,
                "histories": asdict(report.histories),
            }
        )
    else:
        for difference in report.differences:
            typer.echo(
                f"{difference.key}: Redis is {difference.fault.value} "
                f"(rev {difference.redis_rev}, entities {difference.entities_rev})"
            )
        repaired = ", sent to the lanes for repair" if report.repaired else ""
        users = report.histories
        typer.echo(
            f"{report.compared} entities compared, {len(report.differences)} differ{repaired}"
        )
        typer.echo(
            f"{users.compared} histories compared, {users.behind} are behind in Redis, "
            f"{users.ahead} in the topic{repaired}"
        )
    exit_with(0 if report.is_clean or report.repaired else FAILED)


def rebuild(as_json: _Json = False) -> None:
    """Put the view in Redis back from the compacted topics, without one model call.

    Documents and vectors that are newer in Redis stay as they are, and histories are joined, so
    lanes may go on meanwhile.
    A Redis that came back empty or older is noticed and rebuilt by the encode lane itself; this is
    for everything else, and for a Redis that no lane is running on.
    """
    import asyncio
    import time

    from streams.rebuild import rebuild_command

    settings = load_settings()
    started = time.monotonic()
    with _progress("rebuilding partitions") as on_progress:
        report = asyncio.run(rebuild_command(settings, on_progress=on_progress))
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        print_json(asdict(report) | {"seconds": seconds})
    else:
        typer.echo(
            f"{report.entities} entities and {report.users} users put back in {seconds:.1f} s"
        )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(console=stderr(), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
