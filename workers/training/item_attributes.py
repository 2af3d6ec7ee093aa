"""Items as a ranker knows them without any text: an id and a few attributes, as numbers. Pure.

What was met less than a few times is unknown: an embedding would be noise, and at serving time
something unknown comes every day.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.fingerprints import Json

UNKNOWN = 0
"""The id of items, and the value of attributes, that were met too seldom."""

MOST_VALUES = 4
"""Of one attribute of an item; the others are left out."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """`ids` (n,) and `values` (n, A, MOST_VALUES), UNKNOWN behind what there is; sizes with it."""

    ids: Ints
    values: Ints
    id_count: int
    value_counts: tuple[int, ...]


def item_attributes(
    fields: Sequence[Mapping[str, Json]], names: Sequence[str], seen: Ints, least_seen: int
) -> ItemAttributes:
    """Return the numbers of n items; `seen` (n,) says how often training met each.

    Only what training met gets a number: the catalogue may hold items from after it.
    """
    known = np.flatnonzero(seen >= least_seen)
    ids = np.full(len(fields), UNKNOWN, np.int64)
    ids[known] = np.arange(1, len(known) + 1)
    values = np.full((len(fields), len(names), MOST_VALUES), UNKNOWN, np.int64)
    counts = []
    for place, name in enumerate(names):
        spoken = [_values(one.get(name)) for one in fields]
        met: Counter[str] = Counter()
        for said, times in zip(spoken, seen.tolist(), strict=True):
            met.update(dict.fromkeys(said, times))
        kept = sorted(value for value, times in met.items() if times >= least_seen)
        number = {value: index for index, value in enumerate(kept, start=1)}
        for row, said in enumerate(spoken):
            own = [number[value] for value in said if value in number][:MOST_VALUES]
            values[row, place, : len(own)] = own
        counts.append(len(number) + 1)
    return ItemAttributes(ids, values, len(known) + 1, tuple(counts))


def _values(value: Json) -> list[str]:
    match value:
        case None:
            return []
        case str() | bool() | int() | float():
            return [str(value)]
        case Mapping():
            return [f"{name} {one}" for name, one in sorted(value.items())]
        case _:
            return [str(one) for one in value]
