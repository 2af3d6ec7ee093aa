"""The same catalogue with knowledge about cold items taken away, shared or mixed up. Pure numpy.

For the ladder (content, collective, individual) and for the control: knowledge of another item has
to lose what knowledge gained.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workers.encoding.representation import CONTENT, TITLE

Parts: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]


def is_factor(part_names: Sequence[str]) -> Mask:
    """Return (P,) which parts are knowledge."""
    return np.array([name not in (TITLE, CONTENT) for name in part_names])


def without_knowledge(
    parts: Parts, mask: Mask, part_names: Sequence[str], rows: Mask
) -> tuple[Parts, Mask]:
    """Return `parts` (n, P, d) and `mask` (n, P) in which `rows` (n,) have content parts alone."""
    return _with_factors(parts, mask, part_names, rows, np.zeros_like(parts[rows]), None)


def with_knowledge_of_others(
    parts: Parts, mask: Mask, part_names: Sequence[str], rows: Mask, seed: int
) -> tuple[Parts, Mask]:
    """Return them with the knowledge of `rows` (n,) passed around among these: none keeps its own.

    Raises ValueError with fewer than two rows.
    """
    chosen = np.flatnonzero(rows)
    if len(chosen) < 2:
        raise ValueError(f"{len(chosen)} items have no knowledge to exchange")
    # One cycle through all of them has no fixed point.
    cycle = np.random.default_rng(seed).permutation(len(chosen))
    giver = np.empty(len(chosen), np.int64)
    giver[cycle] = np.roll(cycle, 1)
    return _with_factors(parts, mask, part_names, rows, parts[chosen[giver]], mask[chosen[giver]])


def with_shared_knowledge(
    parts: Parts,
    mask: Mask,
    part_names: Sequence[str],
    rows: Mask,
    shared: tuple[Parts, Mask],
) -> tuple[Parts, Mask]:
    """Return them with the factor parts of `shared` (rows, P, d) and (rows, P) instead."""
    return _with_factors(parts, mask, part_names, rows, *shared)


def _with_factors(
    parts: Parts,
    mask: Mask,
    part_names: Sequence[str],
    rows: Mask,
    factors: Parts,
    present: Mask | None,
) -> tuple[Parts, Mask]:
    replaced = is_factor(part_names)
    changed, changed_mask = parts.copy(), mask.copy()
    changed[rows] = np.where(replaced[None, :, None], factors, parts[rows])
    there = np.zeros_like(mask[rows]) if present is None else present
    changed_mask[rows] = np.where(replaced[None, :], there, mask[rows])
    return changed, changed_mask
