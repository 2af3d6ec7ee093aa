"""What a prompt may show of a group: its most central members, by title. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.fingerprints import Json
from workers.adaptors.adaptor import Array
from workers.grouping.groups import Ints
from workers.knowledge.group_prompt import MAX_MEMBERS
from workers.knowledge.titles import title_line


def exemplars(
    features: Array,
    rows: Ints,
    centroids: Array,
    entries: Sequence[Mapping[str, Json]],
    *,
    most: int = MAX_MEMBERS,
) -> list[tuple[Mapping[str, Json], ...]]:
    """Return the entries of each group's members, nearest to its centroid first, at most `most`.

    `features` (n, D) and `centroids` (K, D) are unit rows, `rows` (n,) the group of each member and
    `entries` what may be shown of it. Of members as near, the first; of the same line, one.
    """
    cosines = np.einsum("ij,ij->i", features, centroids[rows])
    # Rounded, so that equal members tie whatever the order of the sums; stable, so the first wins.
    order = np.argsort(-np.round(cosines, 6), kind="stable")
    chosen: list[list[Mapping[str, Json]]] = [[] for _ in centroids]
    for member in order.tolist():
        shown, entry = chosen[rows[member]], entries[member]
        if len(shown) < most and title_line(entry) not in map(title_line, shown):
            shown.append(entry)
    return [tuple(shown) for shown in chosen]
