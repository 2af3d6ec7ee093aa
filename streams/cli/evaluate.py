"""`freshet evaluate`: what vectors are worth for items and users nobody has seen before."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from streams.cli.evaluate_tables import show_cold_start, show_staleness
from streams.cli.output import load_settings, print_json
from streams.cli.progress import progress_bar

app = typer.Typer(
    name="evaluate", help="What vectors are worth: cold items, freshness.", no_args_is_help=True
)

_Catalog = Annotated[Path, typer.Option(help="JSONL file of items or events.")]
_Knowledge = Annotated[
    Path | None,
    typer.Option(help="JSONL file of knowledge; only items with knowledge take part then."),
]
_Train = Annotated[
    Path,
    typer.Option(help="CSV or JSONL (.gz) with user_id, item_id[, rating][, timestamp or at_ms]."),
]
_Space = Annotated[str, typer.Option(help="A space's name, or its directory.")]
_Liked = Annotated[float, typer.Option(help="Ratings from here on are likes.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command(
    "cold-start",
    epilog="Example: freshet evaluate cold-start --catalog films.jsonl --knowledge told.jsonl "
    "--train ratings.csv.gz --test 2013-06-04 --space parts-pca --json",
)
def cold_start(  # noqa: PLR0913, PLR0917  # one for each option
    catalog: _Catalog,
    train: _Train,
    space: _Space,
    knowledge: _Knowledge = None,
    test: Annotated[
        str | None,
        typer.Option(help="File of later interactions, or a date (UTC) that parts the training."),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.9, help="Instead: this share of the items, at random."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --hold-out.")] = 0,
    k: Annotated[int, typer.Option(min=1, help="How many are shown to a user.")] = 20,
    candidates: Annotated[
        Literal["cold", "all"],
        typer.Option(help="cold: items without training interactions; or all."),
    ] = "cold",
    liked_from: _Liked = 7.0,
    history: Annotated[
        Literal["all", "lane"],
        typer.Option(help="all: whole histories; lane: as much as the behaviour lane keeps."),
    ] = "all",
    stage: Annotated[
        Literal["individual", "shared", "collective", "content"],
        typer.Option(
            help="What is known of cold items: individual; shared (a short phrase for each of the "
            "domain's shared factors, as in overload); collective (their group's); content."
        ),
    ] = "individual",
    warm_stage: Annotated[
        Literal["individual", "content"],
        typer.Option(help="What is known of the others: individual or content."),
    ] = "individual",
    groups: Annotated[str | None, typer.Option(help="For collective: a cut of groups.")] = None,
    group_knowledge: Annotated[
        Path | None, typer.Option(help='For collective: JSONL of {"group_id", "knowledge"}.')
    ] = None,
    shuffle_knowledge: Annotated[
        int | None,
        typer.Option(min=0, help="Seed: every cold item gets the knowledge of another one."),
    ] = None,
    through_pipeline: Annotated[
        bool,
        typer.Option("--through-pipeline", help="Events to the running lanes, vectors from Redis."),
    ] = False,
    wait: Annotated[
        float, typer.Option(min=1, help="Seconds that the lanes may take, each time.")
    ] = 900.0,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the deployment serves somebody else.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Rank items that nobody has touched for users with a history; both by the space's vectors.

    Recall, NDCG, hit rate and percentile are averages over the users with a history and a liked
    cold item; audience AUC says of the cold items with ten fans how well their vectors tell these
    from other users. Intervals are of 95 % over users (audience AUC: over items).
    """
    import asyncio

    from schemas.errors import ConfigurationError
    from streams.evaluation.cold_start_run import (
        ColdStartOptions,
        HoldOut,
        LiveOptions,
        evaluate_cold_start,
        moment_or_file,
    )
    from streams.evaluation.shared_knowledge import SharedKnowledge

    if (test is None) == (hold_out is None):
        raise ConfigurationError("--test", "needed: either --test or --hold-out")
    if (groups is None) != (group_knowledge is None):
        raise ConfigurationError("--groups", "goes with --group-knowledge")
    options = ColdStartOptions(
        catalog=catalog,
        knowledge=knowledge,
        train=train,
        test=HoldOut(hold_out or 0.0, seed) if test is None else moment_or_file(test, "--test"),
        space=space,
        k=k,
        candidates=candidates,
        liked_from=liked_from,
        history=history,
        stage=stage,
        warm_stage=warm_stage,
        shared=(
            None
            if groups is None or group_knowledge is None
            else SharedKnowledge(groups, group_knowledge)
        ),
        shuffle_seed=shuffle_knowledge,
    )
    live = LiveOptions(wait, force) if through_pipeline else None
    with progress_bar() as progress:
        result = asyncio.run(
            evaluate_cold_start(load_settings(), options, live=live, progress=progress)
        )
    if as_json:
        print_json(result.to_json())
    else:
        show_cold_start(result)


@app.command(
    epilog="Example: freshet evaluate staleness --catalog films.jsonl --knowledge told.jsonl "
    "--train ratings.csv.gz --from 2013-06-04 --space parts-pca --out staleness.png"
)
def staleness(
    catalog: _Catalog,
    train: _Train,
    space: _Space,
    start: Annotated[str, typer.Option("--from", help="Date (UTC) from which likes are asked.")],
    knowledge: _Knowledge = None,
    liked_from: _Liked = 7.0,
    out: Annotated[
        Path | None, typer.Option(help="PNG to draw (needs the evaluate extra).")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Replay interactions in order of time, and rank with vectors that are live, or stale.

    A vector of one minute, hour or day knows what happened until then; never: as of --from. A new
    item appears with its first interaction, and has a vector so much later. Every liked
    interaction by a user with five likes before it asks for its item among all that have a vector
    by then.
    """
    import asyncio

    from streams.evaluation.cold_start_run import moment_of
    from streams.evaluation.staleness_run import StalenessOptions, draw, evaluate_staleness

    options = StalenessOptions(
        catalog=catalog,
        knowledge=knowledge,
        train=train,
        space=space,
        start_ms=moment_of(start, "--from"),
        liked_from=liked_from,
    )
    with progress_bar() as progress:
        result = asyncio.run(evaluate_staleness(load_settings(), options, progress=progress))
    if out is not None:
        draw(result, out)
    if as_json:
        print_json(result.to_json())
        return
    show_staleness(result)
    if out is not None:
        typer.echo(f"chart: {out}")


@app.command(
    epilog="Example: freshet evaluate split --catalog films.jsonl --knowledge told.jsonl "
    "--train ratings.csv.gz --hold-out 0.2 --seed 1 --out held-out"
)
def split(
    catalog: _Catalog,
    train: _Train,
    out: Annotated[Path, typer.Option(help="Directory to make, for freshet train --data.")],
    knowledge: _Knowledge = None,
    test: Annotated[str | None, typer.Option(help="A date (UTC) that parts the training.")] = None,
    hold_out: Annotated[
        float | None, typer.Option(min=0.01, max=0.9, help="This share of the items, at random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --hold-out.")] = 0,
    as_json: _Json = False,
) -> None:
    """Write a split as files, to train on one side of it and to evaluate on the other.

    The same options part the same way in cold-start.
    """
    import asyncio

    from schemas.errors import ConfigurationError
    from streams.evaluation.cold_start_run import HoldOut, moment_of
    from streams.evaluation.split_files import write_split

    if (test is None) == (hold_out is None):
        raise ConfigurationError("--test", "needed: either --test or --hold-out")
    with progress_bar() as progress:
        written = asyncio.run(
            write_split(
                load_settings(),
                catalog=catalog,
                knowledge=knowledge,
                train=train,
                test=HoldOut(hold_out or 0.0, seed) if test is None else moment_of(test, "--test"),
                out=out,
                progress=progress,
            )
        )
    if as_json:
        print_json(written)
    else:
        for name, count in written.items():
            typer.echo(f"{out / name}: {count} interactions")


@app.command(
    epilog="Example: freshet evaluate reki --data deploy/demo/data --arm shuffled --arm random"
)
def reki(
    data: Annotated[Path, typer.Option(help="Folder as for freshet train reki.")],
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Also compare: shuffled, random, content, mlp (repeatable)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm.")] = 5,
    attributes: Annotated[
        str, typer.Option(help="Fields of the catalogue that the ranker embeds, by commas.")
    ] = "genres,year,directors",
    history: Annotated[
        int, typer.Option(min=1, help="Newest interactions that the ranker looks at.")
    ] = 20,
    liked_from: Annotated[float, typer.Option(help="Ratings from here on are likes.")] = 8.0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it runs.")] = "auto",
    as_json: _Json = False,
) -> None:
    """What a DIN ranker gains from REKI's features: AUC on the last fifth of the time."""
    import asyncio

    from streams.reki_training import evaluate
    from workers.training.reki_options import RekiOptions

    options = RekiOptions(
        attributes=tuple(filter(None, attributes.split(","))),
        history=history,
        liked_from=liked_from,
    )
    settings = load_settings()
    with progress_bar() as progress:
        found = asyncio.run(
            evaluate(
                settings,
                data,
                options,
                arms=["reki", *(arm or [])],
                seeds=seeds,
                device=device,
                progress=progress,
            )
        )
    if as_json:
        print_json({name: one.to_json() for name, one in found.items()})
        return
    for name, one in found.items():
        low, high = one.by_user
        typer.echo(
            f"{name:<9} AUC {one.auc:.4f}  gain {one.gain:+.4f} ({one.relative:+.2%}), "
            f"95 % of users drawn anew: {low:+.4f} to {high:+.4f}"
        )
