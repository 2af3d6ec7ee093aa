"""`freshet evaluate cold-start`: files and a space in, figures out, offline or through lanes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from schemas.errors import ConfigurationError
from streams.evaluation.cold_start_scores import ColdStartScores, NamedVectors, cold_start_scores
from streams.evaluation.cold_start_task import (
    LIKED_FROM,
    Candidates,
    ColdStartTask,
    cold_start_task,
)
from streams.evaluation.event_histories import UNBOUNDED, check_actions, histories_from
from streams.evaluation.live_run import run_live
from streams.evaluation.offline_vectors import RawItems, bytes_per_item, offline_vectors
from streams.evaluation.shared_knowledge import SharedKnowledge, brief_parts, shared_parts
from streams.evaluation.withheld_knowledge import (
    is_factor,
    with_knowledge_of_others,
    with_shared_knowledge,
    without_knowledge,
)
from streams.represented_catalogue import (
    Progress,
    RepresentedCatalogue,
    represent_catalogue,
    silent,
)
from streams.settings import Settings
from streams.user_parts import significance_of, tower_options
from workers.adaptors.hein import HeinAdaptor
from workers.adaptors.space_files import SPACE_FILE, LoadedSpace, load_space
from workers.evaluation.interaction_files import read_interactions
from workers.evaluation.splits import Split, hold_out_items, split_at
from workers.towers.load_towers import tower_of

Stage: TypeAlias = Literal["individual", "shared", "collective", "content"]
History: TypeAlias = Literal["all", "lane"]


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A share of the items to be drawn at random as cold."""

    share: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ColdStartOptions:
    """What to measure; see `freshet evaluate cold-start --help`.

    `test` is a file, a moment in ms since the epoch that parts `train`, or items to hold out.
    """

    catalog: Path
    knowledge: Path | None
    train: Path
    test: Path | int | HoldOut
    space: str
    k: int = 20
    candidates: Candidates = "cold"
    liked_from: float = LIKED_FROM
    history: History = "all"
    stage: Stage = "individual"
    warm_stage: Literal["individual", "content"] = "individual"
    shared: SharedKnowledge | None = None
    shuffle_seed: int | None = None


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How long lanes may take each time, and whether somebody else's deployment will do."""

    wait_seconds: float = 900.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class ColdStartResult:
    """The figures, and what they cost: `facts` is JSON-ready."""

    scores: ColdStartScores
    facts: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """Return JSON-ready values."""
        return {**self.scores.to_json(), **self.facts}


async def evaluate_cold_start(
    settings: Settings,
    options: ColdStartOptions,
    *,
    live: LiveOptions | None = None,
    progress: Progress = silent,
) -> ColdStartResult:
    """Return the figures of a space; with `live` its vectors come from the running lanes.

    Raises ConfigurationError on files and options that do not fit, and see `live_run.run_live`.
    """
    settings, loaded = open_space(settings, options.space)
    if live is not None:
        _check_live(options)
    progress("reading interactions", 0, 0)
    catalogue = await represent_catalogue(
        settings, catalog=options.catalog, knowledge=options.knowledge, progress=progress
    )
    check_parts(loaded, catalogue)
    known = known_items(catalogue, with_knowledge=options.knowledge is not None)
    split = await asyncio.to_thread(read_split, options.train, options.test, known)
    task = cold_start_task(
        split, known, candidates=options.candidates, liked_from=options.liked_from
    )
    check_actions(task.train, settings.behaviour)
    progress("making vectors", 0, 0)
    facts: dict[str, object]
    if live is not None:
        run = await asyncio.to_thread(
            run_live,
            settings,
            space=loaded.space.name,
            catalog=options.catalog,
            item_ids=task.items,
            interactions=task.train,
            wait_seconds=live.wait_seconds,
            force=live.force,
            progress=progress,
        )
        items, users = run.items, run.users
        facts = {
            "stages": run.stages,
            "pipeline_items_per_second": len(items.ids) / run.items_seconds,
            "pipeline_interactions_per_second": len(task.train) / run.users_seconds,
        }
    else:
        items, users, facts = await _offline(settings, options, loaded, catalogue, task)
    progress("ranking", 0, 0)
    scores = await asyncio.to_thread(_scores, task, items, users, k=options.k, loaded=loaded)
    return ColdStartResult(
        scores,
        {
            "space": loaded.space.name,
            "through_pipeline": live is not None,
            "stage": options.stage,
            "candidates": options.candidates,
            "shuffled": options.shuffle_seed is not None,
            "bytes_per_item": bytes_per_item(loaded.space),
            **facts,
        },
    )


def open_space(settings: Settings, space: str) -> tuple[Settings, LoadedSpace]:
    """Return a space by its name, or by its directory; and settings that look where it lies.

    Raises ConfigurationError, for a space too whose users and items are not to be compared.
    """
    directory = Path(space)
    if (directory / SPACE_FILE).is_file():
        parent = directory.resolve().parent
        encode = settings.encode.model_copy(update={"spaces_dir": parent})
        settings = settings.model_copy(update={"encode": encode})
        space = directory.resolve().name
    loaded = load_space(settings.encode.spaces_dir, space)
    if isinstance(loaded.adaptor, HeinAdaptor):
        raise ConfigurationError(
            "--space",
            f"{space} holds features for a ranker, not vectors to find items by; what they are "
            "worth to a ranker: freshet evaluate reki",
        )
    return settings, loaded


def known_items(catalogue: RepresentedCatalogue, *, with_knowledge: bool) -> frozenset[str]:
    """Return the ids of the items that take part: where there is knowledge, those that have it."""
    counted = is_factor(catalogue.raw.parts) if with_knowledge else np.True_
    rows = np.flatnonzero((catalogue.mask & counted).any(axis=1))
    return frozenset(catalogue.keys[row].id for row in rows.tolist())


def read_split(train: Path, test: Path | int | HoldOut, known: frozenset[str]) -> Split:
    """Return what is known and what is asked; raises ConfigurationError."""
    interactions = read_interactions(train)
    match test:
        case Path():
            return Split(interactions, read_interactions(test))
        case HoldOut():
            return hold_out_items(interactions, test.share, test.seed, known)
        case _:
            return split_at(interactions, test)


def moment_or_file(text: str, option: str) -> Path | int:
    """Return a file's path, or a moment as `moment_of` does; raises ConfigurationError."""
    return Path(text) if Path(text).is_file() else moment_of(text, option)


def moment_of(text: str, option: str) -> int:
    """Return ms since the epoch of an ISO date or time, UTC unless it says otherwise.

    Raises ConfigurationError.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(option, f"{text!r} is no date, and no file") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _check_live(options: ColdStartOptions) -> None:
    if options.shuffle_seed is not None or options.shared is not None:
        raise ConfigurationError(
            "--through-pipeline", "knowledge comes from the lanes: it cannot be mixed up or shared"
        )
    if "content" in (options.stage, options.warm_stage) or options.stage == "shared":
        raise ConfigurationError(
            "--through-pipeline", "the lanes decide about stages: run them without a writer instead"
        )


def check_parts(loaded: LoadedSpace, catalogue: RepresentedCatalogue) -> None:
    """Raise ConfigurationError unless the space is made from parts like the catalogue's."""
    ours = (loaded.space.encoder_id, loaded.space.parts, loaded.space.part_dim)
    raw = catalogue.raw
    if ours != (raw.encoder_id, raw.parts, raw.part_dim):
        raise ConfigurationError(
            f"space {loaded.space.name}",
            f"made from {ours[0]} and {', '.join(ours[1])}; the catalogue is in {raw.encoder_id} "
            f"and {', '.join(raw.parts)}",
        )


async def _offline(
    settings: Settings,
    options: ColdStartOptions,
    loaded: LoadedSpace,
    catalogue: RepresentedCatalogue,
    task: ColdStartTask,
) -> tuple[NamedVectors, NamedVectors, dict[str, object]]:
    items = await _items(settings, options, catalogue, task)
    bounds = settings.behaviour.bounds if options.history == "lane" else UNBOUNDED
    made = await asyncio.to_thread(
        lambda: offline_vectors(
            loaded.adaptor,
            tower_of(loaded.space, tower_options(settings)),
            items,
            histories_from(task.train, bounds),
            significance_of(settings.behaviour),
        )
    )
    return (
        made.items,
        made.users,
        {
            "item_vectors_per_second": made.items_per_second,
            "user_vectors_per_second": made.users_per_second,
        },
    )


async def _items(
    settings: Settings,
    options: ColdStartOptions,
    catalogue: RepresentedCatalogue,
    task: ColdStartTask,
) -> RawItems:
    """Return the raw parts of all items that take part, knowledge withheld as asked."""
    row = {key.id: place for place, key in enumerate(catalogue.keys)}
    ids = task.items
    rows = np.array([row[id_] for id_ in ids], np.int64)
    parts, mask, names = catalogue.parts[rows], catalogue.mask[rows], catalogue.raw.parts
    cold = np.array([id_ in task.cold for id_ in ids])
    if options.warm_stage == "content":
        parts, mask = without_knowledge(parts, mask, names, ~cold)
    if options.stage == "content":
        parts, mask = without_knowledge(parts, mask, names, cold)
    elif options.stage == "collective":
        shared = await shared_parts(settings, options.shared, catalogue, parts[cold], mask[cold])
        parts, mask = with_shared_knowledge(parts, mask, names, cold, shared)
    elif options.stage == "shared":
        brief = await brief_parts(settings, catalogue, rows[cold].tolist())
        parts, mask = with_shared_knowledge(parts, mask, names, cold, brief)
    if options.shuffle_seed is not None:
        informed = cold & mask[:, is_factor(names)].any(axis=1)
        try:
            parts, mask = with_knowledge_of_others(
                parts, mask, names, informed, options.shuffle_seed
            )
        except ValueError as error:
            raise ConfigurationError("--shuffle-knowledge", str(error)) from error
    return RawItems(ids, parts, mask)


def _scores(
    task: ColdStartTask,
    items: NamedVectors,
    users: NamedVectors,
    *,
    k: int,
    loaded: LoadedSpace,
) -> ColdStartScores:
    try:
        return cold_start_scores(task, items, users, k=k, metric=loaded.space.metric)
    except ValueError as error:
        raise ConfigurationError("evaluate", str(error)) from error
