"""`freshet erase`: a user who wants to be forgotten."""

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.output import FAILED, exit_with, fail, load_settings, moment, print_json, stderr


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: freshet erase user:7 --wait 30")(erase)


def erase(
    key: Annotated[str, typer.Argument(help="user:7")],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until nothing is left.")
    ] = 60.0,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Only send the erasure; do not look.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Erase a user: history, vectors and knowledge up to now; a mark of id and time stays.

    The behaviour and encode lanes have to run. Exit code 1 if something was left when the time was
    up: then look at `freshet lag`; the erasure itself is in Kafka and will be done.
    """
    import asyncio

    from schemas.entities import EntityKey
    from streams.maintenance.erase import erase as run

    user = EntityKey.parse(key)
    settings = load_settings()
    with stderr().status("erasing ...") as status:
        report = asyncio.run(
            run(
                settings,
                user,
                wait_seconds=None if no_wait else wait,
                on_wait=lambda left: status.update(f"waiting for {', '.join(left)} to go"),
            )
        )
    if as_json:
        print_json(asdict(report) | {"user": str(user), "seconds": round(report.seconds, 3)})
    elif report.left is None:
        typer.echo(f"the erasure of {user} as of {moment(report.erased_at_ms)} is sent")
    elif report.left:
        fail(
            f"{user} is not erased after {report.seconds:.1f} s: {', '.join(report.left)} left; "
            "the erasure is sent, try: freshet lag"
        )
    else:
        came_back = "; there are newer interactions" if report.came_back else ""
        typer.echo(
            f"{user} is erased as of {moment(report.erased_at_ms)}, "
            f"{report.seconds:.1f} s{came_back}"
        )
    exit_with(FAILED if report.left else 0)
