"""The entry point of `freshet`: commands, and the boundary where errors become one line.

Exit codes: 0 all right, 1 something failed or a check did not pass, 2 wrong usage or configuration.
"""

import sys
from typing import Annotated

import typer

from schemas.errors import ConfigurationError, FreshetError, InvalidInput
from streams.cli import (
    dead_letters,
    doctor,
    entities,
    erase,
    evaluate,
    groups,
    lag,
    lanes,
    llm,
    maintenance,
    produce,
    spaces,
    topics,
    train,
)
from streams.cli.output import FAILED, MISUSED, fail

app = typer.Typer(
    name="freshet",
    help="Keeps a recommender's knowledge fresh: from events on Kafka to live vectors in Redis.",
    epilog="Settings: environment variables like FRESHET_KAFKA__BOOTSTRAP_SERVERS and "
    "FRESHET_REDIS__URL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
produce.register(app)
lanes.register(app)
entities.register(app)
erase.register(app)
lag.register(app)
maintenance.register(app)
doctor.register(app)
app.add_typer(topics.app)
app.add_typer(dead_letters.app)
app.add_typer(spaces.app)
app.add_typer(groups.app)
app.add_typer(train.app)
app.add_typer(evaluate.app)
app.add_typer(llm.app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("freshet"))
        except PackageNotFoundError:
            typer.echo("not installed")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Keeps a recommender's knowledge fresh."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; raises SystemExit always."""
    from streams.logs import configure, silence_third_parties

    # Results go to stdout, which a program may read: what a library logs must not end up there.
    configure("warning", "console")
    silence_third_parties()
    try:
        app(arguments, prog_name="freshet")
    except (ConfigurationError, InvalidInput) as error:
        fail(str(error))
        sys.exit(MISUSED)
    except FreshetError as error:
        fail(str(error))
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
