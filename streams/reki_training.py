"""`freshet train reki` and `freshet evaluate reki`: from a folder of files to a space or figures.

The folder is that of `freshet train learn`; its interactions need ratings and times.
"""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from schemas.errors import ConfigurationError
from schemas.topics import DAY_MS
from streams.learn_training import CATALOG, KNOWLEDGE, interactions_file
from streams.represented_catalogue import (
    Progress,
    RepresentedCatalogue,
    represent_catalogue,
    silent,
)
from streams.settings import Settings
from streams.user_parts import significance_of
from workers.adaptors.space_files import list_spaces, save_space
from workers.encoding.load_encoder import EncoderLoader, load_encoder
from workers.encoding.representation import CONTENT, TITLE
from workers.evaluation.interaction_files import read_interactions
from workers.training.device import device_of
from workers.training.reki_comparison import ARMS, ArmFigures, compare
from workers.training.reki_data import Items, RekiData
from workers.training.reki_options import RekiOptions
from workers.training.timed_samples import TimedSamples
from workers.training.train_reki import TrainedReki, reki_space, train_reki

_CHECKPOINT = "checkpoint.pt"
_RATE = "rate"


@dataclass(frozen=True, slots=True)
class RekiJob:
    """What is trained; `resume` goes on from the checkpoint that was left."""

    data: Path
    name: str
    options: RekiOptions
    resume: bool = False
    device: str = "auto"


async def train(
    settings: Settings,
    job: RekiJob,
    *,
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> tuple[Path, TrainedReki]:
    """Train the space, save it and the raw space, and return its directory.

    Raises ConfigurationError.
    """
    directory = settings.encode.spaces_dir
    if job.name in list_spaces(directory):
        raise ConfigurationError("--out", f"the space {job.name} exists in {directory}")
    source = await _Source.read(settings, job.data, progress, load_encoder)
    data = source.of(job.options)
    work = directory / f".{job.name}-training"
    if not job.resume:
        shutil.rmtree(work, ignore_errors=True)
    trained = await asyncio.to_thread(
        train_reki,
        data,
        job.options,
        device_of(job.device),
        checkpoint=work / _CHECKPOINT,
        progress=progress,
    )
    catalogue = source.catalogue
    adaptor = reki_space(
        trained,
        data,
        catalogue.raw,
        name=job.name,
        provenance={
            **source.hashes,
            "options": json.dumps(job.options.declared(), sort_keys=True),
        },
    )
    catalogue.save_raw_space(directory)
    path = save_space(directory, adaptor, catalogue.golden)
    shutil.rmtree(work, ignore_errors=True)
    return path, trained


async def evaluate(
    settings: Settings,
    folder: Path,
    options: RekiOptions,
    *,
    arms: Sequence[str],
    seeds: int,
    device: str = "auto",
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> dict[str, ArmFigures]:
    """Return what DIN gains from REKI's features on the last part of the interactions.

    Raises ConfigurationError.
    """
    unknown = sorted(set(arms) - ARMS.keys())
    if unknown:
        raise ConfigurationError("--arm", f"{unknown[0]!r} is none of {', '.join(ARMS)}")
    if not options.test_share:
        raise ConfigurationError("--test-share", "nothing would be left to judge by")
    source = await _Source.read(settings, folder, progress, load_encoder)
    return await asyncio.to_thread(
        compare, source.of, options, arms, seeds, device_of(device), progress=progress
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """What the folder holds, represented; `of` makes the arrays of some options."""

    settings: Settings
    catalogue: RepresentedCatalogue
    samples: TimedSamples
    hashes: Mapping[str, str]

    @classmethod
    async def read(
        cls, settings: Settings, folder: Path, progress: Progress, load_encoder: EncoderLoader
    ) -> "_Source":
        knowledge = folder / KNOWLEDGE
        catalogue = await represent_catalogue(
            settings,
            catalog=folder / CATALOG,
            knowledge=knowledge if knowledge.is_file() else None,
            progress=progress,
            load_encoder=load_encoder,
        )
        file = interactions_file(folder)
        files = [folder / CATALOG, *([knowledge] if knowledge.is_file() else []), file]
        return cls(
            settings,
            catalogue,
            _samples(file, catalogue),
            {f"sha256_{path.name}": sha256(path.read_bytes()).hexdigest() for path in files},
        )

    def of(self, options: RekiOptions) -> RekiData:
        catalogue, behaviour = self.catalogue, self.settings.behaviour
        significance = significance_of(behaviour)
        weight = significance.actions.get(_RATE, 1.0)
        return RekiData.of(
            Items(
                catalogue.parts,
                catalogue.mask,
                [one.content.fields if one.content else {} for one in catalogue.documents],
                catalogue.raw.parts,
                np.array([part not in (TITLE, CONTENT) for part in catalogue.raw.parts]),
            ),
            self.samples,
            lambda value: weight * significance.scale.share(value),
            round(behaviour.half_life_days * DAY_MS),
            options,
        )


def _samples(file: Path, catalogue: RepresentedCatalogue) -> TimedSamples:
    """Return the rated interactions with items of the catalogue."""
    interactions = read_interactions(file)
    if not interactions.timed:
        raise ConfigurationError("--data", f"{file.name} has interactions without a time")
    row = {key.id: place for place, key in enumerate(catalogue.keys)}
    items = np.array([row.get(item, -1) for item in interactions.item.tolist()], np.int64)
    known = (items >= 0) & np.isfinite(interactions.value)
    if not known.any():
        raise ConfigurationError("--data", f"{file.name} rates no item of the catalogue")
    kept = interactions.take(known)
    return TimedSamples.of(kept.user, items[known], kept.value.astype(np.float32), kept.at_ms)
