"""`freshet topics`: create the declared topics, or check that they are as declared."""

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.output import FAILED, exit_with, load_settings, print_json

app = typer.Typer(
    name="topics", help="Create or check the topics of this deployment.", no_args_is_help=True
)

_Lanes = Annotated[
    list[str] | None,
    typer.Option("--lane", help="One more lane with dead letters, e.g. encode.parts-pca-2."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command(epilog="Example: freshet topics apply")
def apply(lane: _Lanes = None, as_json: _Json = False) -> None:
    """Create missing topics, add partitions, set configurations; nothing is ever deleted.

    Exit code 1 when a difference remains that apply cannot put right.
    """
    from streams import topic_admin

    settings = load_settings()
    applied = topic_admin.apply(settings.kafka, extra_lanes=_checked(lane))
    if as_json:
        print_json(
            {
                "changes": [asdict(change) for change in applied.changes],
                "remaining": [asdict(difference) for difference in applied.remaining],
            }
        )
    else:
        for change in applied.changes:
            if change.setting == topic_admin.MISSING:
                typer.echo(f"created {change.topic}")
            else:
                typer.echo(
                    f"changed {change.topic}: {change.setting} {change.actual} -> {change.expected}"
                )
        for difference in applied.remaining:
            typer.echo(f"left {difference}")
        if not applied.changes and not applied.remaining:
            typer.echo(f"all {len(topic_admin.declared(settings.kafka))} topics are as declared")
    exit_with(FAILED if applied.remaining else 0)


@app.command(epilog="Example: freshet topics check --json")
def check(lane: _Lanes = None, as_json: _Json = False) -> None:
    """List how topics differ from their declaration; exit code 1 when any does."""
    from streams import topic_admin

    settings = load_settings()
    differences = topic_admin.check(settings.kafka, extra_lanes=_checked(lane))
    if as_json:
        print_json({"differences": [asdict(difference) for difference in differences]})
    else:
        for difference in differences:
            typer.echo(str(difference))
        if not differences:
            typer.echo(f"all {len(topic_admin.declared(settings.kafka))} topics are as declared")
    exit_with(FAILED if differences else 0)


def _checked(lanes: list[str] | None) -> list[str]:
    from streams.topology import lane_inputs

    for lane in lanes or []:
        lane_inputs(lane)
    return lanes or []
