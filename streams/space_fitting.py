"""`freshet spaces fit`: a `parts-pca` space from a catalogue, in files or in the compacted topics.

A refit of a running deployment needs no encoder unless parts are missing (see
streams.represented_catalogue).
"""

import asyncio
from pathlib import Path
from typing import Literal, TypeAlias

from schemas.entities import EntityKind
from streams.represented_catalogue import Progress, Source, represent_catalogue, silent
from streams.settings import Settings
from workers.adaptors.parts_pca import DEFAULT_DIM, fit_parts_pca
from workers.adaptors.space_files import save_space
from workers.encoding.load_encoder import EncoderLoader, load_encoder

Users: TypeAlias = Literal["histories", "knowledge", "none"]
"""Where a space takes its user vectors from; with none it is a space of items alone."""

FIT_ITEMS = 20_000
"""More items add nothing to a few hundred components and cost memory: 12 kB each, several times."""


async def fit(
    settings: Settings,
    *,
    name: str,
    catalog: Source,
    knowledge: Source | None,
    dim: int = DEFAULT_DIM,
    users: Users = "histories",
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> Path:
    """Fit the space `name` and return its directory; also makes the raw space's if there is none.

    `catalog` and `knowledge` are JSONL files or "topic"; without knowledge only the content parts
    have a say in the space. Of a catalogue above FIT_ITEMS a sample is taken. `users` have no say:
    it declares where their vectors will come from. `load_encoder` gets the choice of the settings.
    Raises ConfigurationError, Transient("kafka").
    """
    catalogue = await represent_catalogue(
        settings,
        catalog=catalog,
        knowledge=knowledge,
        limit=FIT_ITEMS,
        progress=progress,
        load_encoder=load_encoder,
    )
    progress("fitting", 0, 0)
    adaptor = await asyncio.to_thread(
        fit_parts_pca,
        catalogue.parts,
        catalogue.mask,
        name=name,
        encoder_id=catalogue.raw.encoder_id,
        part_names=catalogue.raw.parts,
        dim=dim,
        kinds=(EntityKind.ITEM,) if users == "none" else (EntityKind.ITEM, EntityKind.USER),
        user_vectors="knowledge" if users == "knowledge" else "histories",
    )
    directory = settings.encode.spaces_dir
    catalogue.save_raw_space(directory)
    return save_space(directory, adaptor, catalogue.golden)
