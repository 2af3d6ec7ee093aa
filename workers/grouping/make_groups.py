"""Groups of a catalogue: features, clusters, centroids, ids and exemplars, in one go. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError
from schemas.fingerprints import Json
from workers.adaptors.adaptor import Array, Mask
from workers.grouping.cut import cut_tree
from workers.grouping.depth import Depth, depth_of
from workers.grouping.exemplars import exemplars
from workers.grouping.groups import (
    Group,
    Groups,
    Ints,
    centred_rows,
    centroid_rows,
    chosen_parts,
    part_means,
)
from workers.grouping.kmeans import kmeans
from workers.grouping.stable_ids import stable_ids
from workers.grouping.streakhc import grow
from workers.knowledge.titles import entry_of

Method: TypeAlias = Literal["kmeans", "tree"]

GROUPED_PARTS = ("title", "content")
"""What an item has from the start: what is written about it comes too late to find its group by."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How to cut: `groups` is the number of k-means, `cap` the most members a group of the tree."""

    method: Method
    groups: int
    cap: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """New groups; `depth` is that of the tree they were cut from, `kept` counts ids of old ones."""

    groups: Groups
    depth: Depth | None
    members: int
    kept: int


def make_groups(
    name: str,
    keys: Sequence[EntityKey],
    fields: Sequence[Mapping[str, Json]],
    parts: Array,
    mask: Mask,
    *,
    part_names: Sequence[str],
    encoder_id: str,
    cut: Cut,
    old: Groups | None = None,
) -> Made:
    """Return groups of the items that have a title and a part to be told apart by.

    `parts` (n, P, d) and `mask` (n, P) are raw parts of `keys`, in ascending order, whose content
    fields are `fields`. `old` groups lend their ids to new ones with mostly the same members.
    Raises ConfigurationError when nothing can be grouped or the old groups are of other parts.
    """
    shown = [entry_of(key.id, one) for key, one in zip(keys, fields, strict=True)]
    used, used_mask = chosen_parts(parts, mask, part_names, GROUPED_PARTS)
    mean = part_means(used, used_mask)
    features = centred_rows(used, used_mask, mean)
    grouped = np.flatnonzero(features.any(axis=1) & np.array([one is not None for one in shown]))
    if not len(grouped):
        raise ConfigurationError(f"groups {name}", f"none of {len(keys)} items can be grouped")
    features = features[grouped]
    entries = [entry for index in grouped.tolist() if (entry := shown[index]) is not None]
    rows, depth = _cluster(features, [keys[index].id for index in grouped.tolist()], cut)
    count = int(rows.max()) + 1
    centroids = centroid_rows(features, rows, count)
    ids = [f"{name}-{row}" for row in range(count)]
    kept = 0
    if old is not None:
        _require_same_parts(name, old, encoder_id, parts.shape[2])
        old_rows, _ = old.nearest(parts[grouped], mask[grouped], part_names)
        old_ids = [group.id for group in old.groups]
        ids = stable_ids(old_rows, rows, old_ids, ids)
        kept = len(set(ids) & set(old_ids))
    sizes = np.bincount(rows, minlength=count).tolist()
    tops = exemplars(features, rows, centroids, entries)
    groups = Groups(
        name=name,
        kind=EntityKind.ITEM,
        encoder_id=encoder_id,
        parts=GROUPED_PARTS,
        part_dim=parts.shape[2],
        mean=mean,
        centroids=centroids,
        groups=tuple(map(Group, ids, sizes, tops)),
    )
    return Made(groups, depth, len(grouped), kept)


def _cluster(features: Array, names: list[str], cut: Cut) -> tuple[Ints, Depth | None]:
    """Return (n,) the row of each member's group, and how deep the tree was if there was one."""
    if cut.method == "kmeans":
        return kmeans(features, cut.groups), None
    tree = grow(names, features, seed=cut.seed).tree()
    number = {
        leaf: row for row, node in enumerate(cut_tree(tree, cut.cap)) for leaf in tree.leaves(node)
    }
    return np.array([number[name] for name in names], np.int64), depth_of(tree)


def _require_same_parts(name: str, old: Groups, encoder_id: str, part_dim: int) -> None:
    if (old.encoder_id, old.part_dim) != (encoder_id, part_dim):
        raise ConfigurationError(
            f"groups {name}", f"{old.name} is of {old.encoder_id}, the catalogue of {encoder_id}"
        )
