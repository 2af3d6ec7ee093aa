"""Batches of users for a LEARN step: histories, the positions asked, and what follows. Numpy.

Stage 1 of the sampling bounds histories and targets, stage 2 picks the positions and targets of the
dense loss; full softmax takes the end of each history against all its targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.training.learn_loss import NO_ITEM
from workers.training.two_stage_sampling import recent_sample, uniform_sample
from workers.training.user_sequences import Division, UserSequences

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """`users` a batch; `history` and `targets` of stage 1, `positions` and `pairs` of stage 2."""

    users: int = 240
    history: int = 80
    targets: int = 40
    positions: int = 10
    pairs: int = 10


class Batch(NamedTuple):
    """One step's users.

    `rows` (B, L) of the catalogue, oldest first, NO_ITEM at the end; `at` (B, H) positions in them,
    the last one repeated where there are fewer; `targets` (B, T) rows of the catalogue or NO_ITEM;
    `follows` and `known` (B, n): all targets and all of the history, whether sampled or not.
    """

    rows: Ints
    at: Ints
    targets: Ints
    follows: Mask
    known: Mask


def batches(
    sequences: UserSequences, items: int, sizes: BatchSizes, random: np.random.Generator
) -> Iterator[Batch]:
    """Yield every user once, divided and sampled anew; `items` is the size of the catalogue."""
    waiting: list[Division] = []
    for _, division in sequences.divisions(random):
        waiting.append(division)
        if len(waiting) == sizes.users:
            yield _batch(waiting, items, sizes, random)
            waiting = []
    # A lone user has nobody else's targets to be told from.
    if len(waiting) > 1:
        yield _batch(waiting, items, sizes, random)


def _batch(
    divisions: list[Division], items: int, sizes: BatchSizes, random: np.random.Generator
) -> Batch:
    histories, places, targets = [], [], []
    follows = np.zeros((len(divisions), items), np.bool_)
    known = np.zeros_like(follows)
    for user, division in enumerate(divisions):
        history = _sampled(division.history, sizes.history, random)
        targets_held = _sampled(division.targets, sizes.targets, random)
        histories.append(history)
        places.append(recent_sample(len(history), sizes.positions, random))
        targets.append(targets_held[recent_sample(len(targets_held), sizes.pairs, random)])
        follows[user, division.targets] = True
        known[user, division.history] = True
    return Batch(
        laid(histories), _repeating(places, sizes.positions), laid(targets), follows, known
    )


def _sampled(items: Ints, count: int, random: np.random.Generator) -> Ints:
    return items[uniform_sample(len(items), count, random)]


def laid(rows: list[Ints]) -> Ints:
    """Return (n, longest) with NO_ITEM behind each of the rows."""
    whole = np.full((len(rows), max(map(len, rows), default=0)), NO_ITEM, np.int64)
    for line, row in enumerate(rows):
        whole[line, : len(row)] = row
    return whole


def _repeating(places: list[Ints], count: int) -> Ints:
    return np.stack([np.pad(one, (0, count - len(one)), "edge") for one in places])
