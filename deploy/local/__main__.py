"""The command line of the local stack: `python -m deploy.local up|down|status|env`."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.local.server_process import ServerFailedError
from deploy.local.stack import DEFAULT_ROOT, LocalStack, StackState, read_state, stop_detached

_Root = Annotated[Path, typer.Option(help="Folder of the servers' data and logs.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")]

app = typer.Typer(
    help="A real Apache Kafka and Redis on this machine, without Docker, Java or root.",
    add_completion=False,
    no_args_is_help=True,
)


@app.command()
def up(
    root: _Root = DEFAULT_ROOT,
    kafka_port: _Port = 0,
    redis_port: _Port = 0,
    as_json: _Json = False,
) -> None:
    """Start Kafka and Redis in the background, unless they run, and print how to reach them."""
    state = read_state(root)
    if state is None or not state.running:
        stop_detached(root)  # one of the two may have survived
        stack = LocalStack(root, kafka_port=kafka_port, redis_port=redis_port, detached=True)
        with Console(stderr=True).status("Starting Kafka and Redis"):
            try:
                stack.start()
            except ServerFailedError as error:
                typer.echo(str(error), err=True)
                raise typer.Exit(1) from None
        state = stack.state
    _show(state, as_json=as_json)


@app.command()
def down(
    root: _Root = DEFAULT_ROOT,
    delete_data: Annotated[bool, typer.Option(help="Forget topics and keys too.")] = False,
) -> None:
    """Stop Kafka and Redis; their data stays for the next start."""
    with Console(stderr=True).status("Stopping Kafka and Redis"):
        stop_detached(root)
    if delete_data:
        # Only what the servers made: the folder may have been chosen carelessly.
        for name in ("kafka", "redis"):
            shutil.rmtree(root / name, ignore_errors=True)


@app.command()
def status(root: _Root = DEFAULT_ROOT, as_json: _Json = False) -> None:
    """Say whether both servers run; exit code 1 when not."""
    state = read_state(root)
    if as_json:
        _show(state, as_json=True)
    elif state is None:
        typer.echo("not started")
    else:
        kafka, redis = ("up" if up else "down" for up in (state.kafka_running, state.redis_running))
        typer.echo(f"Kafka {kafka}: {state.kafka_bootstrap_servers} (process {state.kafka_pid})")
        typer.echo(f"Redis {redis}: {state.redis_url} (process {state.redis_pid})")
    if state is None or not state.running:
        raise typer.Exit(1)


@app.command()
def env(root: _Root = DEFAULT_ROOT, as_json: _Json = False) -> None:
    """Print the settings of the running stack: `eval "$(python -m deploy.local env)"`."""
    state = read_state(root)
    if state is None or not state.running:
        typer.echo("the local stack is not running: python -m deploy.local up", err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(dict(state.environment)))
    else:
        _show(state, as_json=False)


def _show(state: StackState | None, *, as_json: bool) -> None:
    if as_json:
        facts = (
            {"running": False}
            if state is None
            else {
                "running": state.running,
                **asdict(state),
                "environment": dict(state.environment),
            }
        )
        typer.echo(json.dumps(facts))
    elif state is not None:
        for name, value in state.environment.items():
            typer.echo(f"export {name}={value}")


if __name__ == "__main__":
    app(prog_name="python -m deploy.local")
