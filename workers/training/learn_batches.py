"""Users for a LEARN step: their histories, and what is to be found. Numpy.

Dense loss: stage 1 of the sampling bounds histories and targets, stage 2 picks positions and
targets. Full softmax: an episode takes some items for new ones, which are in no history, and has
them found among one another, as items are that nobody has met.
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

_ASKED_SHARES = (0.15, 0.3)
"""So many of the items are new in an episode."""


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """`users` a batch; `history` and `targets` of stage 1, `positions` and `pairs` of stage 2.

    An episode has users and histories only.
    """

    users: int = 240
    history: int = 80
    targets: int = 40
    positions: int = 10
    pairs: int = 10


class Batch(NamedTuple):
    """One step's users.

    `rows` (B, L) of the catalogue, oldest first, NO_ITEM at the end; `at` (B, H) positions in them,
    the last one repeated where there are fewer; `targets` (B, T) rows of the catalogue or NO_ITEM.
    """

    rows: Ints
    at: Ints
    targets: Ints


class Episode(NamedTuple):
    """One step's users: `rows` and `at` (B, 1) as in a batch, at the end of each history.

    `asked` (c,) are the rows of the catalogue that are new, `found` (B, c) who took to which.
    """

    rows: Ints
    at: Ints
    asked: Ints
    found: Mask


def episodes(
    sequences: UserSequences, items: int, sizes: BatchSizes, random: np.random.Generator
) -> Iterator[Episode]:
    """Yield every user once; which items are new is drawn for each episode.

    Users for whom nothing is left on a side are passed over, and so is an episode without any.
    """
    order = random.permutation(len(sequences))
    for start in range(0, len(order), sizes.users):
        asked = random.random(items) < random.uniform(*_ASKED_SHARES)
        divisions = [
            division
            for user in order[start : start + sizes.users].tolist()
            if len((division := sequences.apart(user, asked, random)).history)
            and len(division.targets)
        ]
        if divisions:
            yield _episode(divisions, np.flatnonzero(asked), items, sizes, random)


def _episode(
    divisions: list[Division],
    asked: Ints,
    items: int,
    sizes: BatchSizes,
    random: np.random.Generator,
) -> Episode:
    histories = [_sampled(one.history, sizes.history, random) for one in divisions]
    found = np.zeros((len(divisions), items), np.bool_)
    for user, division in enumerate(divisions):
        found[user, division.targets] = True
    ends = np.array([[len(one) - 1] for one in histories], np.int64)
    return Episode(laid(histories), ends, asked, found[:, asked])


def batches(
    sequences: UserSequences, sizes: BatchSizes, random: np.random.Generator
) -> Iterator[Batch]:
    """Yield every user once, divided and sampled anew."""
    waiting: list[Division] = []
    for _, division in sequences.divisions(random):
        waiting.append(division)
        if len(waiting) == sizes.users:
            yield _batch(waiting, sizes, random)
            waiting = []
    # A lone user has nobody else's targets to be told from.
    if len(waiting) > 1:
        yield _batch(waiting, sizes, random)


def _batch(divisions: list[Division], sizes: BatchSizes, random: np.random.Generator) -> Batch:
    histories, places, targets = [], [], []
    for division in divisions:
        history = _sampled(division.history, sizes.history, random)
        targets_held = _sampled(division.targets, sizes.targets, random)
        histories.append(history)
        places.append(recent_sample(len(history), sizes.positions, random))
        targets.append(targets_held[recent_sample(len(targets_held), sizes.pairs, random)])
    return Batch(laid(histories), _repeating(places, sizes.positions), laid(targets))


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
