"""What items without knowledge of their own have instead, as parts.

Either what was written about their group, or the beginnings of a few factors: as much as a call
says of each item that several of them share.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError, InvalidInput
from schemas.knowledge import Document, Factors, Provenance
from streams.evaluation.withheld_knowledge import is_factor
from streams.represented_catalogue import RepresentedCatalogue, represent_documents
from streams.settings import Settings
from workers.grouping.group_files import load_groups
from workers.grouping.groups import NO_GROUP
from workers.knowledge.load_domain import load_domain
from workers.knowledge.shared_prompt import phrase_within


@dataclass(frozen=True, slots=True)
class SharedKnowledge:
    """A cut of groups, and a JSONL file of what was written about them.

    Its lines are `{"group_id": ..., "knowledge": {factor: text}}`.
    """

    groups: str
    knowledge: Path


async def shared_parts(
    settings: Settings,
    shared: SharedKnowledge | None,
    catalogue: RepresentedCatalogue,
    parts: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (n, P, d) and (n, P): the parts of what was written about each item's group.

    `parts` (n, P, d) and `mask` (n, P) are the items' own. Raises ConfigurationError.
    """
    if shared is None:
        raise ConfigurationError("--stage", "collective needs --groups and --group-knowledge")
    groups = load_groups(settings.groups.dir, shared.groups)
    names = catalogue.raw.parts
    content = ~is_factor(names)
    nearest, _ = groups.nearest(parts, mask & content[None, :], names)
    written = await asyncio.to_thread(_group_documents, shared.knowledge)
    told = await represent_documents(settings, written)
    place = {key.id: index for index, key in enumerate(told.keys)}
    # One row more for groups of which nothing is written, and for items of no group.
    texts = np.concatenate([told.parts, np.zeros((1, *told.parts.shape[1:]), np.float32)])
    there = np.concatenate([told.mask, np.zeros((1, len(names)), np.bool_)])
    rows = [
        len(place) if group == NO_GROUP else place.get(groups.groups[group].id, len(place))
        for group in nearest.tolist()
    ]
    return texts[rows], there[rows]


async def brief_parts(
    settings: Settings, catalogue: RepresentedCatalogue, rows: Sequence[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (rows, P, d) and (rows, P): the parts of what a shared call would say of these items.

    That is the shared factors of their knowledge, cut to a shared phrase. Raises
    ConfigurationError.
    """
    knowledge = settings.knowledge
    domain = load_domain(
        knowledge.domain,
        factors=knowledge.factors,
        max_factor_chars=knowledge.max_factor_chars,
        max_tokens=knowledge.max_tokens,
    )
    documents: dict[EntityKey, Document] = {}
    for row in rows:
        told = catalogue.documents[row].live_factors
        brief = {
            name: phrase_within(told.factors[name], domain.shared_chars)
            for name in domain.shared
            if told is not None and name in told.factors
        }
        documents[catalogue.keys[row]] = _told(brief)
    shared = await represent_documents(settings, documents)
    return shared.parts, shared.mask


def _group_documents(path: Path) -> dict[EntityKey, Document]:
    documents: dict[EntityKey, Document] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError("--group-knowledge", f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            body = orjson.loads(line)
            factors = {str(name): str(text) for name, text in body["knowledge"].items()}
            key = EntityKey.parse(f"{EntityKind.GROUP}:{body['group_id']}")
        except (KeyError, TypeError, ValueError, AttributeError, InvalidInput) as error:
            raise ConfigurationError(
                "--group-knowledge", f"{path}: line {number}: {error!r}"
            ) from error
        documents[key] = _told(factors)
    return documents


def _told(factors: Mapping[str, str]) -> Document:
    return Document(individual=Factors(0, 0, factors, Provenance("recorded", "", ""), 0))
