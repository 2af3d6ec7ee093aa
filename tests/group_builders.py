"""Groups small enough to reason about, for tests of everything that uses groups."""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.entities import EntityKind
from schemas.fingerprints import Json
from schemas.groups import GroupsRecord
from tests.fakes.clock import START_MS
from tests.fakes.encoding import DIM, ENCODER_ID
from workers.grouping.groups import Group, Groups

CUT = "films"


def entry(item: str, title: str, **more: Json) -> Mapping[str, Json]:
    return {"item": item, "title": title, **more}


CRIME = Group(f"{CUT}-0", 2, (entry("1", "Heat", year=1995, genres=["Crime"]), entry("2", "Ronin")))
TOYS = Group(f"{CUT}-1", 1, (entry("3", "Toy Story", year=1995, genres=["Animation"]),))


def axis(place: int, *, dim: int = DIM) -> np.ndarray:
    """A unit vector: all of it in one place."""
    vector = np.zeros(dim, np.float32)
    vector[place] = 1.0
    return vector


def cut(
    name: str = CUT,
    groups: Sequence[Group] = (CRIME, TOYS),
    mean: np.ndarray | None = None,
) -> Groups:
    """A cut over (title, content) of DIM each: group i points along place i of the content."""
    return Groups(
        name=name,
        kind=EntityKind.ITEM,
        encoder_id=ENCODER_ID,
        parts=("title", "content"),
        part_dim=DIM,
        mean=np.zeros(2 * DIM, np.float32) if mean is None else mean,
        centroids=np.stack([axis(DIM + place, dim=2 * DIM) for place in range(len(groups))]),
        groups=tuple(groups),
    )


def in_use(name: str, digest: str, changed_at_ms: int = START_MS) -> GroupsRecord:
    return GroupsRecord(kind=EntityKind.ITEM, name=name, digest=digest, changed_at_ms=changed_at_ms)
