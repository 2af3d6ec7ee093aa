"""What a LEARN network is chosen by: users' next items, or items kept out of the training. Numpy.

Never the test set: with times the last stretch of them is held out, without times a share of the
items, drawn at random, or what the caller names. A held-out item is in no history and no softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from workers.evaluation.retrieval import NO_PAIRS, Pairs, retrieve
from workers.training.learn_batches import laid
from workers.training.user_sequences import UserSequences

TOP = 20
"""Recall and NDCG of the first so many are what counts."""

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]


class HeldOutFigures(NamedTuple):
    """Recall@20 and NDCG@20, macro averages over users."""

    recall: float
    ndcg: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Users' `rows` (U, L) of the catalogue, oldest first, NO_ITEM behind, and what to find.

    `candidates` (c,) are rows of the catalogue; `positives` pairs of a user and a place among them;
    `left_out` are a user's own candidates that do not compete.
    """

    rows: Ints
    candidates: Ints
    positives: Pairs
    left_out: Pairs

    def judge(self, users: Array, items: Array) -> HeldOutFigures:
        """Return the figures of user vectors (U, dim) and vectors of all items (n, dim), by dot."""
        found = retrieve(
            users,
            items[self.candidates],
            self.positives,
            k=min(TOP, len(self.candidates)),
            metric="dot",
            left_out=self.left_out,
        )
        return HeldOutFigures(float(found.recall.mean()), float(found.ndcg.mean()))


class Parted(NamedTuple):
    """What is trained on, and what it is chosen by."""

    train: UserSequences
    held_out: HeldOut


def hold_out(sequences: UserSequences, items: int, share: float, seed: int, history: int) -> Parted:
    """Return the sequences parted in time, or by items where there are no times.

    `items` is the size of the catalogue, `history` how many items of a user count. Raises
    ConfigurationError when nothing is left on one side.
    """
    if sequences.at_ms is not None:
        return _last_stretch(sequences, sequences.quantile(1 - share), items, history)
    known = np.unique(sequences.items)
    drawn = np.random.default_rng(seed).permutation(known)[: max(1, round(len(known) * share))]
    return hold_out_items(sequences, sequences, drawn, items, history)


def hold_out_items(
    train: UserSequences, test: UserSequences, drawn: Ints, items: int, history: int
) -> Parted:
    """Return `train` without the items `drawn`, and who had which of them in `test`."""
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
    return Parted(left, _held_out(histories, np.sort(drawn), found, NO_PAIRS))


def _last_stretch(sequences: UserSequences, cut_ms: int, items: int, history: int) -> Parted:
    histories, found, left_out = [], [], []
    for user in range(len(sequences)):
        division = sequences.divided(user, cut_ms)
        if len(division.history) and len(division.targets):
            histories.append(division.history[-history:])
            found.append(np.unique(division.targets).tolist())
            left_out.append(np.unique(division.history).tolist())
    candidates = np.arange(items)
    return Parted(
        sequences.before(cut_ms), _held_out(histories, candidates, found, Pairs.of(left_out))
    )


def _held_out(
    histories: list[Ints], candidates: Ints, found: Sequence[Sequence[int]], left_out: Pairs
) -> HeldOut:
    if not histories:
        raise ConfigurationError("--valid", "no user has both a history and something to find")
    return HeldOut(laid(histories), candidates, Pairs.of(found), left_out)
