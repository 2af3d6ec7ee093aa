"""`freshet train learn`: a LEARN space from a folder of files, put into the spaces directory.

The folder holds `catalog.jsonl`, optionally `knowledge.jsonl`, and one file of interactions
(`interactions`, `interactions_train` or `ratings`, as CSV or JSONL, gzipped or not).
"""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from schemas.errors import ConfigurationError
from streams.represented_catalogue import (
    Progress,
    RepresentedCatalogue,
    represent_catalogue,
    silent,
)
from streams.settings import Settings
from workers.adaptors.space_files import list_spaces, save_space
from workers.encoding.load_encoder import EncoderLoader, load_encoder
from workers.encoding.representation import CONTENT, TITLE
from workers.evaluation.interaction_files import Interactions, read_interactions
from workers.training.device import device_of
from workers.training.held_out import hold_out, hold_out_items
from workers.training.learn_options import LearnOptions
from workers.training.train_learn import (
    EpochReport,
    LearnData,
    TrainedSpace,
    train_learn,
    without_knowledge,
)
from workers.training.user_sequences import UserSequences

CATALOG = "catalog.jsonl"
KNOWLEDGE = "knowledge.jsonl"
_INTERACTIONS = ("interactions", "interactions_train", "ratings")
_FORMS = ("csv", "csv.gz", "jsonl", "jsonl.gz")
_CHECKPOINT = "checkpoint.pt"

HELD_OUT_SHARE = 0.15
"""Of the time, or where there are no times of the items, by which the epochs are chosen."""


@dataclass(frozen=True, slots=True)
class LearnJob:
    """What is trained: `valid` names what to find of held-out items, else a share is held out.

    `until_ms` leaves later interactions out. `refit` trains once more on everything after the
    number of epochs is chosen. `resume` goes on from the checkpoint that was left.
    """

    data: Path
    name: str
    options: LearnOptions
    valid: Path | None = None
    until_ms: int | None = None
    knowledge: bool = True
    refit: bool = True
    resume: bool = False
    device: str = "auto"


async def train(
    settings: Settings,
    job: LearnJob,
    *,
    progress: Progress = silent,
    on_epoch: Callable[[EpochReport], None] = lambda _report: None,
    load_encoder: EncoderLoader = load_encoder,
) -> tuple[Path, TrainedSpace]:
    """Train the space, save it and the raw space, and return its directory.

    Raises ConfigurationError.
    """
    directory = settings.encode.spaces_dir
    if job.name in list_spaces(directory):
        raise ConfigurationError("--out", f"the space {job.name} exists in {directory}")
    if not job.options.others_rate and job.options.dim > job.options.width:
        # The projection keeps its start: what is beyond the width would be zero for everything.
        raise ConfigurationError("--dim", f"at most the width of the network, {job.options.width}")
    knowledge = job.data / KNOWLEDGE
    catalogue = await represent_catalogue(
        settings,
        catalog=job.data / CATALOG,
        knowledge=knowledge if job.knowledge and knowledge.is_file() else None,
        progress=progress,
        load_encoder=load_encoder,
    )
    data = _learn_data(settings, job, catalogue)
    work = directory / f".{job.name}-training"
    if not job.resume:
        shutil.rmtree(work, ignore_errors=True)
    trained = await asyncio.to_thread(
        train_learn,
        data,
        job.options,
        name=job.name,
        device=device_of(job.device),
        checkpoint=work / _CHECKPOINT,
        on_progress=progress,
        on_epoch=on_epoch,
    )
    catalogue.save_raw_space(directory)
    path = save_space(directory, trained.adaptor, catalogue.golden)
    shutil.rmtree(work, ignore_errors=True)
    return path, trained


def interactions_file(folder: Path) -> Path:
    """Return the folder's one file of interactions; raises ConfigurationError."""
    found = [
        path
        for name in _INTERACTIONS
        for form in _FORMS
        if (path := folder / f"{name}.{form}").is_file()
    ]
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise ConfigurationError("--data", f"{folder} needs one file of interactions, has {named}")
    return found[0]


def _learn_data(settings: Settings, job: LearnJob, catalogue: RepresentedCatalogue) -> LearnData:
    rows = {key.id: row for row, key in enumerate(catalogue.keys)}
    file = interactions_file(job.data)
    neutral = settings.behaviour.rating_neutral
    everything = _sequences(read_interactions(file), rows, neutral, job.until_ms)
    items, options = len(rows), job.options
    if job.valid is not None:
        asked = _sequences(read_interactions(job.valid), rows, neutral, job.until_ms)
        parted = hold_out_items(everything, asked, np.unique(asked.items), items, options.history)
    else:
        parted = hold_out(everything, items, HELD_OUT_SHARE, options.seed, options.history)
    # With a file the training loses nothing of its own, unless it knows the same items.
    whole = len(parted.train.items) == len(everything.items)
    files = [file, job.data / CATALOG, *([] if job.valid is None else [job.valid])]
    if job.knowledge and (job.data / KNOWLEDGE).is_file():
        files.append(job.data / KNOWLEDGE)
    data = LearnData(
        parts=catalogue.parts,
        mask=catalogue.mask,
        knowledge_parts=np.array([part not in (TITLE, CONTENT) for part in catalogue.raw.parts]),
        raw=catalogue.raw,
        train=parted.train,
        held_out=parted.held_out,
        everything=everything if job.refit and not whole else None,
        hashes={f"sha256_{path.name}": _digest(path) for path in files},
    )
    return data if job.knowledge else without_knowledge(data)


def _sequences(
    interactions: Interactions, rows: dict[str, int], neutral: float, until_ms: int | None
) -> UserSequences:
    """Return what users liked of the catalogue: what their histories would hold as liked."""
    row = np.array([rows.get(item, -1) for item in interactions.item.tolist()], np.int64)
    # A value that says nothing either way has no weight in the behaviour lane.
    taken = (row >= 0) & ~(interactions.value <= neutral)
    if until_ms is not None:
        if not interactions.timed:
            raise ConfigurationError("--until", "the interactions have no times")
        taken &= interactions.at_ms < until_ms
    if not taken.any():
        raise ConfigurationError("--data", "no interaction likes an item of the catalogue")
    kept = interactions.take(taken)
    return UserSequences.of(kept.user, row[taken], kept.at_ms if interactions.timed else None)


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
