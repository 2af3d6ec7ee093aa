"""What a LEARN network is chosen by: items that are in no history and no softmax. Numpy.

Never the test set. Without times a share of the items, drawn at random, or what the caller names.
With times what users took to in the last stretch of them, of the items that were first met there
and, since those may be few, of some drawn at random: most of what comes next is old items, and how
well these are ranked says little of new ones.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from workers.evaluation.retrieval import Pairs, retrieve
from workers.training.learn_batches import laid
from workers.training.user_sequences import UserSequences

TOP = 20
"""Recall and NDCG of the first so many are what counts."""

TAKEN_FOR_NEW = 0.3
"""Of the items known before the last stretch of time so many are taken for new ones."""

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]


class HeldOutFigures(NamedTuple):
    """Recall@20 and NDCG@20, macro averages over users."""

    recall: float
    ndcg: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Users' `rows` (U, L) of the catalogue, oldest first, NO_ITEM behind, and what to find.

    `candidates` (c,) are rows of the catalogue; `positives` pairs of a user and a place among them.
    """

    rows: Ints
    candidates: Ints
    positives: Pairs

    def judge(self, users: Array, items: Array) -> HeldOutFigures:
        """Return the figures of user vectors (U, dim) and vectors of all items (n, dim), by dot."""
        found = retrieve(
            users,
            items[self.candidates],
            self.positives,
            k=min(TOP, len(self.candidates)),
            metric="dot",
        )
        return HeldOutFigures(float(found.recall.mean()), float(found.ndcg.mean()))


class Parted(NamedTuple):
    """What is trained on, and what it is chosen by."""

    train: UserSequences
    held_out: HeldOut


def hold_out(sequences: UserSequences, items: int, share: float, seed: int, history: int) -> Parted:
    """Return the sequences parted by items, and in time where there are times.

    `items` is the size of the catalogue, `history` how many items of a user count. Raises
    ConfigurationError when nothing is left on one side.
    """
    train = test = sequences
    if sequences.at_ms is not None:
        cut_ms = sequences.quantile(1 - share)
        train, test = sequences.before(cut_ms), sequences.after(cut_ms)
        share = TAKEN_FOR_NEW
    known = np.unique(train.items)
    drawn = np.random.default_rng(seed).permutation(known)[: max(1, round(len(known) * share))]
    new = np.union1d(drawn, np.setdiff1d(test.items, known))
    return hold_out_items(train, test, new, items, history)


def hold_out_items(
    train: UserSequences, test: UserSequences, drawn: Ints, items: int, history: int
) -> Parted:
    """Return `train` without the items `drawn`, and who had which of them in `test`.

    Raises ConfigurationError when nobody did.
    """
    out = np.zeros(items, np.bool_)
    out[drawn] = True
    left = train.without_items(out)
    asked = {str(name): user for user, name in enumerate(test.users)}
    histories, found = [], []
    place = np.full(items, -1, np.int64)
    place[np.sort(drawn)] = np.arange(len(drawn))
    for user, name in enumerate(left.users):
        own = left.of_user(user)
        other = asked.get(str(name))
        wanted = () if other is None else place[test.of_user(other)]
        positives = [at for at in np.unique(wanted).tolist() if at >= 0]
        if len(own) and positives:
            histories.append(own[-history:])
            found.append(positives)
    if not histories:
        raise ConfigurationError("--valid", "no user has both a history and something to find")
    return Parted(left, HeldOut(laid(histories), np.sort(drawn), Pairs.of(found)))
