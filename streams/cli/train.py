"""`freshet train`: learned spaces from a catalogue, its knowledge and interactions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.cli.output import load_settings, print_json, stderr
from streams.cli.progress import progress_bar

if TYPE_CHECKING:
    from workers.training.train_learn import EpochReport

app = typer.Typer(
    name="train", help="Train learned spaces from interactions.", no_args_is_help=True
)

Data = Annotated[
    Path,
    typer.Option(
        help="Folder with catalog.jsonl, knowledge.jsonl (optional) and one of interactions, "
        "interactions_train or ratings (.csv or .jsonl, may end in .gz)."
    ),
]
Out = Annotated[str, typer.Option(help="Name of the new space.")]
Valid = Annotated[
    Path | None,
    typer.Option(
        help="Interactions with items kept out of the training, to choose the epochs by; without "
        "it some of the items are kept out, and, where there are times, their last stretch."
    ),
]
Until = Annotated[
    str | None, typer.Option(help="Leave interactions from this date (UTC) on out entirely.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a training was cut short.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same space.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it runs.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command(epilog="Example: freshet train learn --data films --out learn-1")
def learn(  # noqa: PLR0913, PLR0917  # one for each option
    data: Data,
    out: Out,
    valid: Valid = None,
    until: Until = None,
    resume: Resume = False,
    seed: Seed = 1,
    device: Device = "auto",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most; less when it stops to get better.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, max=48, help="Transformer layers.")] = None,
    width: Annotated[int | None, typer.Option(min=8, help="Width of the network.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, max=65_535, help="Dimensions.")] = None,
    loss: Annotated[
        Literal["full", "dense"],
        typer.Option(help="full: softmax over items taken for new; dense: within the batch."),
    ] = "full",
    knowledge: Annotated[bool, typer.Option(help="Whether knowledge has a say.")] = True,
    refit: Annotated[
        bool, typer.Option(help="Train once more on everything, what was kept out included.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Train a LEARN space and put it into the spaces directory.

    The space is not tested here: see freshet evaluate.
    """
    import asyncio
    from dataclasses import replace

    from streams.learn_training import LearnJob, train
    from workers.training.learn_options import (
        DENSE_SIZES,
        FULL_SIZES,
        LARGE_OTHERS_RATE,
        LearnOptions,
    )

    usual = LearnOptions()
    is_small = loss == "full" and (layers or usual.layers) == 1
    options = replace(
        usual,
        seed=seed,
        loss=loss,
        others_rate=usual.others_rate if is_small else LARGE_OTHERS_RATE,
        sizes=FULL_SIZES if loss == "full" else DENSE_SIZES,
        epochs=epochs or usual.epochs,
        layers=layers or usual.layers,
        width=width or usual.width,
        dim=dim or usual.dim,
    )
    job = LearnJob(
        data=data,
        name=out,
        options=options,
        valid=valid,
        until_ms=None if until is None else _start_of(until),
        knowledge=knowledge,
        refit=refit,
        resume=resume,
        device=device,
    )
    settings = load_settings()
    with progress_bar() as progress:
        directory, trained = asyncio.run(train(settings, job, progress=progress, on_epoch=_show))
    space = trained.adaptor.space
    if as_json:
        print_json({"space": out, "directory": str(directory), "metrics": space.metrics})
        return
    figures = ", ".join(f"{name} {value:.4f}" for name, value in space.metrics.items())
    typer.echo(f"{out} is in {directory} ({figures or 'nothing was held out'})")
    typer.echo(f"next: freshet spaces create {out}")


@app.command(epilog="Example: freshet train reki --data deploy/demo/data --out reki-1")
def reki(
    data: Data,
    out: Out,
    resume: Resume = False,
    seed: Seed = 1,
    device: Device = "auto",
    liked_from: Annotated[float, typer.Option(help="Ratings from here on are likes.")] = 8.0,
    valid_share: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the time to choose the epoch by.")
    ] = 0.1,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="Last share of the time, kept for a test.")
    ] = 0.0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most; less when it stops to get better.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a REKI space, together with a DIN ranker, and put it into the spaces directory.

    Interactions need ratings and times. What the features are worth: see freshet evaluate reki.
    """
    import asyncio
    from dataclasses import replace

    from streams.reki_training import RekiJob, train
    from workers.training.reki_options import RekiOptions

    usual = RekiOptions()
    options = replace(
        usual,
        seed=seed,
        liked_from=liked_from,
        valid_share=valid_share,
        test_share=test_share,
        epochs=epochs or usual.epochs,
    )
    job = RekiJob(data=data, name=out, options=options, resume=resume, device=device)
    settings = load_settings()
    with progress_bar() as progress:
        directory, trained = asyncio.run(train(settings, job, progress=progress))
    if as_json:
        print_json(
            {
                "space": out,
                "directory": str(directory),
                "epochs": len(trained.epochs),
                "valid_auc": trained.valid_auc,
                "test_auc": trained.test_auc,
            }
        )
        return
    typer.echo(f"{out} is in {directory} (AUC on validation {trained.valid_auc:.4f})")
    typer.echo(f"next: freshet spaces create {out}")


def _show(report: "EpochReport") -> None:
    figures = report.figures
    told = (
        "" if figures is None else f"  recall@20 {figures.recall:.4f}  ndcg@20 {figures.ndcg:.4f}"
    )
    loss = "start" if report.loss is None else f"loss {report.loss:.4f}"
    stderr().print(f"{report.stage} {report.epochs}  {loss}{told}")


def _start_of(date: str) -> int:
    from datetime import UTC, datetime

    from schemas.errors import ConfigurationError

    try:
        start = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigurationError("--until", f"{date!r} is no date like 2013-06-04") from error
    return round(start.timestamp() * 1000)
