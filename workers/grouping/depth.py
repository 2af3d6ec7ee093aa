"""How deep a tree is: the alarm for clusterings that chain up instead of branching. Pure.

A tree of n leaves needs log2 n levels. Healthy incremental trees are one and a half to three times
as deep on average; REKI's published tree of Amazon users by negative feedback, where thousands had
none, is 10 times as deep on average and 90 times at its deepest, and its groups are of two users.
"""

from dataclasses import dataclass
from math import log2

from workers.grouping.tree import Tree

_MAX_TO_MEAN = 4.0
"""The deepest leaf may be this much further from the ideal than the average one."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Depth of a tree's leaves, in edges from the root."""

    leaves: int
    mean: float
    max: int

    @property
    def ideal(self) -> float:
        """What a balanced tree would have; 1 for trees too small to tell."""
        return max(1.0, log2(self.leaves))

    def is_degenerate(self, ratio: float) -> bool:
        """Whether the mean exceeds `ratio` times the ideal, or the deepest leaf 4 times that."""
        most = ratio * self.ideal
        return self.mean > most or self.max > _MAX_TO_MEAN * most


def depth_of(tree: Tree) -> Depth:
    """Return how deep a tree's leaves are."""
    depths = tree.leaf_depths()
    return Depth(len(depths), round(sum(depths) / len(depths), 2), max(depths))
