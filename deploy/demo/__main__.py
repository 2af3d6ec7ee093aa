"""The command line of the demo: `python -m deploy.demo`, or `make demo`.

Exit codes: 0 when everything that was sent had its effect, 1 when something did not or failed,
130 after Ctrl-C.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from deploy.demo.interrupts import Interrupted, Interrupts
from deploy.demo.options import LiveSpace, Llm, Options

if TYPE_CHECKING:
    from deploy.demo.summary import Result

DEFAULT_ROOT = Path(__file__).parents[2] / ".freshet" / "demo"
DEFAULT_SPEED = 180_000.0
"""A day of the summer takes half a second, all of it 43 s."""

_LEAST_FILMS = 16

_FILMS_WRITTEN = 40
"""What a small model on two cores writes about in a minute or two."""


def main(
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout, and only that.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End what --keep left running.")] = False,
    speed: Annotated[
        float, typer.Option(min=1.0, help="Seconds of the summer that pass in a second.")
    ] = DEFAULT_SPEED,
    films: Annotated[
        int | None,
        typer.Option(
            min=_LEAST_FILMS,
            help=f"Only so many films, the most rated ones; {_FILMS_WRITTEN} with --llm vllm.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of corrections, bursts and the like.")] = 2013,
    llm: Annotated[
        Llm,
        typer.Option(help="Who writes about films; vllm: a small model on the CPU (make llm-cpu)."),
    ] = Llm.RECORDED,
    space: Annotated[
        LiveSpace,
        typer.Option(
            help="What rankers read; learn: a LEARN space, trained first where there is none yet."
        ),
    ] = LiveSpace.PARTS_PCA,
    root: Annotated[
        Path, typer.Option(help="Folder for data and logs; an earlier run's are deleted.")
    ] = DEFAULT_ROOT,
) -> None:
    """Replay the summer of 2013 on a real Kafka and Redis, and measure how fresh vectors are.

    The films of the back catalogue and the ratings until then first; then new releases, ratings and
    all that a real feed has besides, in time order. It ends by itself in under three minutes on two
    cores, in under five with a real language model. The first run with --space learn trains the
    space, about two minutes more; it is kept.
    """
    if llm is Llm.VLLM and films is None:
        films = _FILMS_WRITTEN
    interrupts = Interrupts()
    try:
        with interrupts.catching():
            if stop:
                _stop(root)
            else:
                _run(
                    interrupts, Options(root, seed, speed, films, keep, llm, space), as_json=as_json
                )
    except Interrupted as interrupted:
        typer.echo("interrupted; everything is stopped", err=True)
        raise typer.Exit(interrupted.exit_code) from None


def _run(interrupts: Interrupts, options: Options, *, as_json: bool) -> None:
    # Imported here, a second's work, so that Ctrl-C already ends the program in order meanwhile.
    from rich.console import Console

    from deploy.demo import kept
    from deploy.demo.display import display
    from deploy.demo.run import DemoRun
    from deploy.local.server_process import ServerFailedError
    from schemas.errors import FreshetError
    from streams.logs import configure, silence_third_parties

    configure("warning", "console")  # on stderr: stdout is for the result
    silence_third_parties()
    root = options.root
    with _only_one(root):
        if kept.is_running(root):
            _fail("a kept demo is still running; stop it first: make demo ARGS=--stop")
        run = DemoRun(options, interrupts)
        try:
            with display(Console(stderr=True), run.board.snapshot):
                result = run.run()
        except (ServerFailedError, FreshetError) as error:
            _fail(str(error))
    _show(result, as_json=as_json)
    if options.keep:
        item_id = run.schedule.newest_release
        hints = kept.what_to_try(root, item_id, run.titles[item_id], run.example_user)
        typer.echo(hints, err=as_json)
    if result.unaccounted:
        raise typer.Exit(1)


def _stop(root: Path) -> None:
    from deploy.demo import kept

    with _only_one(root):
        kept.stop(root)


def _show(result: "Result", *, as_json: bool) -> None:
    from rich.console import Console

    from deploy.demo.summary import tables

    if not as_json:
        Console(highlight=False).print(tables(result))
        return
    for line in result.unaccounted:
        typer.echo(f"not accounted for: {line}", err=True)
    typer.echo(json.dumps(result.to_json()))


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Hold the folder's lock; ends the program when another demo has it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _fail(f"another demo runs in {root}")
        yield


def _fail(message: str) -> NoReturn:
    typer.echo(f"demo: {message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(epilog="Example: python -m deploy.demo --json --speed 500000")(main)
    app(prog_name="python -m deploy.demo")
