"""`freshet llm`: run a vLLM server on this machine, and check one by use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import (
    FAILED,
    exit_with,
    fail,
    load_settings,
    print_json,
    spelled,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streams.settings import Settings
    from workers.knowledge.vllm_checkup import Checkup, Fields
    from workers.knowledge.vllm_launch import VllmLaunch
    from workers.knowledge.vllm_process import VllmProcess

app = typer.Typer(
    name="llm",
    help="The language model: serve one with vLLM, check one by use.",
    no_args_is_help=True,
)

_CPU_OR_GPU = ("cpu", "gpu")


@app.command(epilog="Example: freshet llm serve --device cpu --port 8000")
def serve(
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- VLLM OPTIONS]", help="Further options of vLLM, after --."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's id or folder; by default the declared one (settings)."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or gpu; by default what vLLM is installed for.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8000,
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, help="Answers at once; 32 on a CPU, 256 on a GPU.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=1024, help="Of prompt and answer; 8192 or what it can.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until it must be healthy.")
    ] = 900.0,
) -> None:
    """Run a vLLM server until Ctrl-C or SIGTERM, and print the settings that lanes need.

    Needs its own environment: `make llm-cpu` or `make llm-gpu`. Nothing is downloaded: the default
    model is made from a package on first use. Exit code 1 when the server ends by itself.
    """
    import asyncio

    from streams.llm_server import Wish, plan_launch
    from workers.knowledge.vllm_launch import Device

    if device is not None and device not in _CPU_OR_GPU:
        raise typer.BadParameter(f"{device!r} is not cpu or gpu", param_hint="--device")
    settings = load_settings()
    wish = Wish(
        model=model,
        device=None if device is None else Device(device),
        host=host,
        port=port,
        max_num_seqs=max_num_seqs,
        context_tokens=context_tokens,
        more=more or (),
    )
    launch = plan_launch(
        settings, wish, on_convert=lambda: stderr().print("making the model, once (seconds)")
    )
    exit_with(asyncio.run(_serve(launch, settings, timeout)))


@app.command(epilog="Example: freshet llm check --answers 8 --in-flight 4 --json")
def check(
    answers: Annotated[int, typer.Option(min=1, help="How many items to ask about.")] = 1,
    in_flight: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 1,
    catalog: Annotated[
        Path | None,
        typer.Option(help="Items to ask about: JSON lines with a title; films by default."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="By default the one in the settings.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The declared model; by default as in the settings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Ask a vLLM server for real answers, through the product's own prompt, writer and gate.

    Exit code 1 when it does not serve the declared model, or an answer is not as asked.
    """
    import asyncio

    from streams.llm_server import known_api_key, sampling_of, writing_settings
    from workers.knowledge.load_domain import load_domain
    from workers.knowledge.vllm_checkup import check_up
    from workers.knowledge.vllm_connection import VllmServer

    settings = load_settings()
    knowledge = writing_settings(settings.knowledge, model)
    checkup = asyncio.run(
        check_up(
            VllmServer(
                url or knowledge.vllm_url,
                known_api_key(settings),
                call_seconds=knowledge.call_seconds,
                connect_seconds=knowledge.vllm_connect_seconds,
                connections=in_flight,
                sampling=sampling_of(knowledge),
            ),
            model=knowledge.model,
            domain=load_domain(
                knowledge.domain,
                factors=knowledge.factors,
                max_factor_chars=knowledge.max_factor_chars,
                max_tokens=knowledge.max_tokens,
            ),
            items=_items(catalog, answers),
            in_flight=in_flight,
        )
    )
    if as_json:
        print_json(_facts(checkup))
    else:
        _show(checkup)
    exit_with(0 if checkup.passed else FAILED)


async def _serve(launch: "VllmLaunch", settings: "Settings", timeout_seconds: float) -> int:
    """Run the server until it ends or we are told to; return the exit code."""
    import asyncio
    import os
    import signal

    from streams.llm_server import api_key, log_file
    from workers.knowledge.vllm_process import VllmProcess

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log = log_file(settings.llm)
    process = VllmProcess(launch, api_key=api_key(settings), log_file=log, inherited=os.environ)
    async with process:
        serving = asyncio.create_task(
            _serve_until_it_ends(process, launch, settings, timeout_seconds)
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            # A server that got the terminal's signal by itself ends at the same time.
            if stop.is_set():
                return 0
            code = serving.result()
        finally:
            serving.cancel()
            stopping.cancel()
    fail(f"vllm: ended by itself with exit code {code}; its log is {log}")
    return FAILED


async def _serve_until_it_ends(
    process: "VllmProcess", launch: "VllmLaunch", settings: "Settings", timeout_seconds: float
) -> int:
    import asyncio

    from streams.llm_server import log_file

    log = log_file(settings.llm)
    started = asyncio.get_running_loop().time()
    with stderr().status("") as status:

        def tell(waited: float) -> None:
            status.update(f"vLLM is loading {launch.model} on a {launch.device}: {waited:.0f} s")

        tell(0.0)
        await process.await_healthy(timeout_seconds=timeout_seconds, on_wait=tell)
    took = asyncio.get_running_loop().time() - started
    typer.echo(
        f"ready after {took:.1f} s: {launch.model} at {launch.url}; its log is {log}", err=True
    )
    _announce(launch, settings)
    return await process.wait()


def _announce(launch: "VllmLaunch", settings: "Settings") -> None:
    """Print what a lane's environment needs; the key itself stays in its file."""
    from streams.llm_server import api_key_file, lane_variables

    for name, value in lane_variables(launch).items():
        typer.echo(f"export {name}={value}")
    if not settings.knowledge.vllm_api_key:
        file = api_key_file(settings.llm).resolve()
        typer.echo(f'export FRESHET_KNOWLEDGE__VLLM_API_KEY="$(cat {file})"')


def _items(catalog: Path | None, count: int) -> "list[Fields]":
    from workers.knowledge.vllm_checkup import SAMPLE_FILMS

    items = list(SAMPLE_FILMS) if catalog is None else list(_catalog_items(catalog))
    if len(items) < count:
        # The same prompt twice would come from the prefix cache and flatter the server.
        raise typer.BadParameter(
            f"{count} are more than the {len(items)} items there are", param_hint="--answers"
        )
    return items[:count]


def _catalog_items(path: Path) -> "Iterator[Fields]":
    import orjson

    from schemas.errors import InvalidInput
    from schemas.reasons import Reason

    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--catalog") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(Reason.NOT_JSON, f"{path}, line {number}") from error
        # Both what producers send and a bare line of fields are catalogues.
        fields = row.get("fields", row) if isinstance(row, dict) else None
        if not isinstance(fields, dict) or not isinstance(fields.get("title"), str):
            raise InvalidInput(Reason.EMPTY_TITLE, f"{path}, line {number}")
        yield {name: value for name, value in fields.items() if name != "item_id"}


def _facts(checkup: "Checkup") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(checkup) | {
        "passed": checkup.passed,
        "model_agrees": checkup.model_agrees,
        "tokens_per_second": round(checkup.tokens_per_second, 1),
        "median_latency": checkup.median_latency,
        "worst_latency": checkup.worst_latency,
        "prefix_hit_rate": round(checkup.figures.prefix_hit_rate, 4),
    }


def _show(checkup: "Checkup") -> None:
    from rich.table import Table

    agrees = "" if checkup.model_agrees else " (not the declared one)"
    figures = checkup.figures
    rows = {
        "server": checkup.url,
        "declared model": checkup.declared,
        "served": f"{', '.join(checkup.served) or 'nothing'}{agrees}",
        "valid answers": f"{checkup.valid} of {checkup.asked}, {checkup.in_flight} in flight",
        "past the gate": f"{checkup.accepted} of {checkup.asked}{_counted(checkup.refused)}",
        "tokens written": f"{figures.generated_tokens} in {spelled(checkup.seconds)}: "
        f"{checkup.tokens_per_second:.0f} a second",
        "latency": f"median {spelled(checkup.median_latency)}, "
        f"worst {spelled(checkup.worst_latency)}",
        "prefix cache": f"{figures.prefix_hit_rate:.0%} of {figures.looked_up} prompt tokens",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in rows.items():
        table.add_row(name, text)
    out = stdout()
    out.print(table)
    if checkup.first:
        out.print(f"first answer: {checkup.first}", markup=False)
    for failure, count in checkup.failed.items():
        fail(f"{count} calls failed: {failure}")


def _counted(refused: "Mapping[str, int]") -> str:
    named = ", ".join(f"{count} {code}" for code, count in sorted(refused.items()))
    return f" ({named})" if named else ""
