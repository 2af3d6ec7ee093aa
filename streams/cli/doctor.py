"""`freshet doctor`: is everything there and right, and what to do if not?"""

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.output import FAILED, exit_with, load_settings, print_json, stderr, stdout


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: freshet doctor --no-encoder --json")(doctor)


def doctor(
    encoder: Annotated[
        bool, typer.Option(help="Load the encoder and compare its vectors with the space's.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look at Kafka, topics, Redis, the view, spaces, lanes, the writer and the encoder.

    Says what to do about everything that is not right; exit code 1 if anything is not.
    """
    import asyncio

    from rich.markup import escape

    from streams import doctor as checks

    settings = load_settings()
    with stderr().status("looking ...") as status:
        findings = asyncio.run(
            checks.run(
                settings,
                encoder=encoder,
                on_look=lambda subject: status.update(f"looking at {subject} ..."),
            )
        )
    sound = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": sound, "findings": [asdict(finding) for finding in findings]})
    else:
        out = stdout()
        for finding in findings:
            mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
            out.print(f"{mark} {escape(finding.subject)}: {escape(finding.detail)}")
            if finding.advice:
                out.print(f"       -> {escape(finding.advice)}")
    exit_with(0 if sound else FAILED)
