"""Incremental hierarchical clustering by an isolation kernel: StreaKHC. Numpy, seeded.

`t` random subsets of `psi` points of a sample map a row to the nearest point of every subset: t
one-hot vectors, phi. A node keeps S, the sum of phi over its leaves. A new leaf walks from the root
to the child whose S has the greater cosine with its phi (ties left) until it meets a leaf, and
becomes its sibling; its phi is added all along the way. Removing a leaf subtracts it again and puts
its sibling in the parent's place. Nothing is rebalanced, so the tree depends on the order of
arrival and may degenerate: see workers.grouping.depth. Source: StreaKHC (Han et al., KDD 2022), as
reported for REKI (arXiv 2408.10520).
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import Array
from workers.grouping.groups import Ints
from workers.grouping.tree import Tree, tree_of

SUBSETS = 300
PSI = 3

_Counts: TypeAlias = npt.NDArray[np.int32]
_CHUNK_ROWS = 1_024
_NONE = -1


class IsolationKernel:
    """Maps rows to phi: `subsets` indices into a vector of `subsets` * `psi` positions."""

    def __init__(
        self, sample: Array, *, subsets: int = SUBSETS, psi: int = PSI, seed: int = 0
    ) -> None:
        """Draw the subsets from `sample` (m, D); raises ValueError when it is smaller than psi."""
        if len(sample) < psi or psi < 1 or subsets < 1:
            raise ValueError(f"{subsets} subsets of {psi} from {len(sample)} rows")
        random = np.random.default_rng(seed)
        chosen = np.stack([random.choice(len(sample), psi, replace=False) for _ in range(subsets)])
        self._points = np.ascontiguousarray(sample[chosen.ravel()], np.float32)
        self._squares = np.square(self._points, dtype=np.float32).sum(axis=1)
        self._offsets = np.arange(subsets, dtype=np.int64) * psi
        self.subsets = subsets
        self.psi = psi

    def map(self, rows: Array) -> Ints:
        """Return (n, subsets) positions that are 1 in phi; of points as near, the first."""
        nearest = np.empty((len(rows), self.subsets), np.int64)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            # |x - p|^2 but for |x|^2, which is the same for every point.
            distances = self._squares - 2.0 * (rows[chunk] @ self._points.T)
            nearest[chunk] = distances.reshape(-1, self.subsets, self.psi).argmin(axis=2)
        return nearest + self._offsets


class StreamingTree:
    """The tree: leaves come and go one by one, in O(depth * subsets).

    Cosines are compared as exact integers, so the tree does not depend on a machine's rounding.
    """

    def __init__(self, kernel: IsolationKernel) -> None:
        self._kernel = kernel
        self._root = _NONE
        self._parent: list[int] = []
        self._children: list[tuple[int, int] | None] = []
        self._names: list[str | None] = []
        self._squares: list[int] = []  # |S|^2
        self._sums: list[_Counts] = []
        self._leaf: dict[str, int] = {}
        self._phi: dict[int, Ints] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """Return the number of leaves."""
        return len(self._leaf)

    def insert(self, name: str, phi: Ints) -> None:
        """Add a leaf with its positions (subsets,); raises ValueError when the name is taken."""
        if name in self._leaf:
            raise ValueError(f"leaf {name!r} is in the tree")
        leaf = self._node(name)
        self._leaf[name] = leaf
        self._phi[leaf] = phi
        self._add(leaf, phi, 0)
        if self._root == _NONE:
            self._root = leaf
            return
        node, dot = self._root, self._dot(self._root, phi)
        while (children := self._children[node]) is not None:
            self._add(node, phi, dot)
            node, dot = self._more_similar(children, phi)
        self._split(node, leaf)

    def remove(self, name: str) -> None:
        """Take a leaf out, as if it had only passed by; raises KeyError."""
        leaf = self._leaf.pop(name)
        phi = self._phi.pop(leaf)
        parent = self._parent[leaf]
        self._release(leaf)
        if parent == _NONE:
            self._root = _NONE
            return
        children = self._children[parent]
        if children is None:
            raise RuntimeError("a leaf has a child")
        sibling = children[0] if children[1] == leaf else children[1]
        above = self._parent[parent]
        self._parent[sibling] = above
        if above == _NONE:
            self._root = sibling
        else:
            self._replace_child(above, parent, sibling)
        self._release(parent)
        while above != _NONE:
            self._subtract(above, phi)
            above = self._parent[above]

    def sums(self) -> list[tuple[int, ...]]:
        """Return S of every node, leaves included, in no order."""
        gone = set(self._free)
        return [
            tuple(self._sums[node].tolist()) for node in range(len(self._names)) if node not in gone
        ]

    def tree(self) -> Tree:
        """Return the tree as it is now; raises ValueError when it is empty."""
        if self._root == _NONE:
            raise ValueError("the tree has no leaf")
        gone = set(self._free)
        number: dict[int, int] = {}
        for node in range(len(self._names)):
            if node not in gone:
                number[node] = len(number)
        return tree_of(
            [tuple(number[child] for child in self._children[node] or ()) for node in number],
            [self._names[node] for node in number],
            number[self._root],
        )

    def _more_similar(self, children: tuple[int, int], phi: Ints) -> tuple[int, int]:
        """Return the child to go to, and its S . phi."""
        left, right = children
        left_dot, right_dot = self._dot(left, phi), self._dot(right, phi)
        # left_dot / |S_left| >= right_dot / |S_right|, without a root: all of it is positive.
        if left_dot**2 * self._squares[right] >= right_dot**2 * self._squares[left]:
            return left, left_dot
        return right, right_dot

    def _split(self, node: int, leaf: int) -> None:
        """Put an inner node with `node` and the new leaf into the place of `node`, a leaf."""
        above = self._parent[node]
        inside = self._node(None)
        self._children[inside] = (node, leaf)
        self._parent[inside] = above
        self._parent[node] = self._parent[leaf] = inside
        self._add(inside, self._phi[node], 0)
        self._add(inside, self._phi[leaf], self._dot(inside, self._phi[leaf]))
        if above == _NONE:
            self._root = inside
        else:
            self._replace_child(above, node, inside)

    def _replace_child(self, above: int, old: int, new: int) -> None:
        children = self._children[above]
        if children is None:
            raise RuntimeError("a parent has no children")
        left, right = children
        self._children[above] = (new, right) if left == old else (left, new)

    def _dot(self, node: int, phi: Ints) -> int:
        return int(self._sums[node].take(phi).sum())

    def _add(self, node: int, phi: Ints, dot: int) -> None:
        # |S + phi|^2 = |S|^2 + 2 S.phi + |phi|^2
        self._squares[node] += 2 * dot + self._kernel.subsets
        self._sums[node][phi] += 1

    def _subtract(self, node: int, phi: Ints) -> None:
        self._squares[node] += self._kernel.subsets - 2 * self._dot(node, phi)
        self._sums[node][phi] -= 1

    def _node(self, name: str | None) -> int:
        if self._free:
            node = self._free.pop()
            self._names[node] = name
            return node
        node = len(self._names)
        self._names.append(name)
        self._parent.append(_NONE)
        self._children.append(None)
        self._squares.append(0)
        self._sums.append(np.zeros(self._kernel.subsets * self._kernel.psi, np.int32))
        return node

    def _release(self, node: int) -> None:
        self._names[node] = None
        self._parent[node] = _NONE
        self._children[node] = None
        self._squares[node] = 0
        self._sums[node].fill(0)
        self._free.append(node)


def grow(
    names: list[str],
    rows: Array,
    *,
    subsets: int = SUBSETS,
    psi: int = PSI,
    seed: int = 0,
) -> StreamingTree:
    """Return the tree of rows (n, D), put in in an order that the seed decides.

    Not in the order given: catalogues come sorted, and sorted input is what makes trees degenerate.
    """
    kernel = IsolationKernel(rows, subsets=subsets, psi=min(psi, len(rows)), seed=seed)
    phi = kernel.map(rows)
    tree = StreamingTree(kernel)
    for index in np.random.default_rng(seed).permutation(len(names)).tolist():
        tree.insert(names[index], phi[index])
    return tree
