"""Ways to part interactions into what is known and what is asked. Pure numpy."""

from dataclasses import dataclass

import numpy as np

from schemas.errors import ConfigurationError
from workers.evaluation.interaction_files import Interactions


@dataclass(frozen=True, slots=True)
class Split:
    """What users had done before, and what they did then."""

    train: Interactions
    test: Interactions


def split_at(interactions: Interactions, at_ms: int) -> Split:
    """Return what came before a moment, and what came at or after it.

    Raises ConfigurationError when some interaction has no time, or one side is empty.
    """
    if not interactions.timed:
        raise ConfigurationError("--test", "a moment cannot split interactions without times")
    before = interactions.at_ms < at_ms
    return _checked(Split(interactions.take(before), interactions.take(~before)))


def hold_out_items(
    interactions: Interactions, share: float, seed: int, items: frozenset[str]
) -> Split:
    """Return everything but, and everything about, a share of `items` drawn at random.

    Only items with an interaction are drawn; the same seed draws the same ones from the same items.
    Raises ConfigurationError when one side is empty.
    """
    known = np.array(sorted(items.intersection(interactions.item.tolist())), np.str_)
    count = round(len(known) * share)
    drawn = np.random.default_rng(seed).permutation(len(known))[:count]
    held_out = np.isin(interactions.item, known[drawn])
    return _checked(Split(interactions.take(~held_out), interactions.take(held_out)))


def _checked(split: Split) -> Split:
    for name, side in (("train", split.train), ("test", split.test)):
        if not len(side):
            raise ConfigurationError("--test", f"no interaction is left in {name}")
    return split
