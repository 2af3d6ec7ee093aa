"""Ids of groups that outlive a re-cut: a new group is the old one that it shares its members with.

Pure. Overlap is counted over the entities of the new cut, each with the old group it was served
from until now, so what was written about a group stays with those it was written for.
"""

from collections import Counter
from collections.abc import Sequence

from workers.grouping.groups import NO_GROUP, Ints

LEAST_OVERLAP = 1 / 3
"""Shared members over all members of both: two groups of one size that share half of them."""


def stable_ids(
    old_rows: Ints,
    new_rows: Ints,
    old_ids: Sequence[str],
    fresh_ids: Sequence[str],
    *,
    least_overlap: float = LEAST_OVERLAP,
) -> list[str]:
    """Return the ids of the new groups: the old ones where members stayed together, else fresh.

    `old_rows` and `new_rows` (n,) say for each entity the row of its group, -1 for none;
    `fresh_ids[i]` is what new group i is called when it is a new one. Pairs are made by the number
    of shared members, most first, then by rows; each old id is given once. Of a group that was
    split the largest share keeps the id, and so does the largest share of groups that were merged.
    """
    shared = Counter(zip(old_rows.tolist(), new_rows.tolist(), strict=True))
    old_sizes, new_sizes = Counter(old_rows.tolist()), Counter(new_rows.tolist())
    pairs = sorted(
        (-count, old, new)
        for (old, new), count in shared.items()
        if NO_GROUP not in (old, new)
        and count >= least_overlap * (old_sizes[old] + new_sizes[new] - count)
    )
    ids = list(fresh_ids)
    taken: set[int] = set()
    named: set[int] = set()
    for _, old, new in pairs:
        if old not in taken and new not in named:
            taken.add(old)
            named.add(new)
            ids[new] = old_ids[old]
    return ids
