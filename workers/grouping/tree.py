"""A tree over leaves, as a clusterer makes it or a file holds it. Pure; never recursive.

Trees of incremental clusterers may be thousands of levels deep, so every walk is a loop.
The file form is the one of clustering benchmarks, tab separated, a node a line: its id, its
parent's id (`None` for the root), the name of a leaf (`None` inside), and the number of leaves
below, which is not trusted but counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from schemas.errors import ConfigurationError

_ABSENT = "None"
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes by number, parents before children; node 0 is the root.

    `parents` has -1 for the root, `names` the name of a leaf and None inside, `leaf_counts` the
    leaves at or below a node.
    """

    parents: tuple[int, ...]
    names: tuple[str | None, ...]
    leaf_counts: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]

    def leaves(self, node: int) -> Iterator[str]:
        """Yield the names of the leaves at or below a node, first child first."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            name = self.names[one]
            if name is not None:
                yield name
            waiting.extend(reversed(self.children[one]))

    def leaf_depths(self) -> list[int]:
        """Return the number of edges from the root to each leaf, in the order of the nodes."""
        depths = [0] * len(self.parents)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                depths[node] = depths[parent] + 1
        return [depth for depth, name in zip(depths, self.names, strict=True) if name is not None]


def tree_of(children: Sequence[Sequence[int]], names: Sequence[str | None], root: int) -> Tree:
    """Return the tree of nodes numbered in any way; `names` are those of leaves.

    Raises ValueError when nodes are not all below the root exactly once, when a node with children
    has a name or one without has none, or when two leaves share one.
    """
    order = [root]
    parent_of = {root: -1}
    for node in order:
        for child in children[node]:
            if child in parent_of:
                raise ValueError("a node has two parents")
            parent_of[child] = node
            order.append(child)
    if len(order) != len(children):
        raise ValueError(f"{len(children) - len(order)} nodes are not below the root")
    number = {node: index for index, node in enumerate(order)}
    counts = [0] * len(order)
    seen: set[str] = set()
    for index in range(len(order) - 1, -1, -1):
        node = order[index]
        name = names[node]
        if (name is None) == (not children[node]):
            raise ValueError("a leaf has no name" if name is None else f"{name!r} is no leaf")
        if name is not None:
            if name in seen:
                raise ValueError(f"two leaves are called {name!r}")
            seen.add(name)
            counts[index] = 1
        parent = parent_of[node]
        if parent >= 0:
            counts[number[parent]] += counts[index]
    return Tree(
        parents=tuple(-1 if parent_of[n] < 0 else number[parent_of[n]] for n in order),
        names=tuple(names[node] for node in order),
        leaf_counts=tuple(counts),
        children=tuple(tuple(number[child] for child in children[node]) for node in order),
    )


def read_tree(lines: Iterable[str]) -> Tree:
    """Return the tree in the lines of a file; raises ConfigurationError saying what is wrong."""
    number: dict[str, int] = {}
    parents: list[str] = []
    names: list[str | None] = []
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        columns = line.rstrip("\r\n").split("\t")
        if len(columns) < _COLUMNS:
            raise ConfigurationError("tree", f"line {at}: needs node, parent and leaf name")
        node, parent, name = columns[:_COLUMNS]
        if node in number:
            raise ConfigurationError("tree", f"line {at}: node {node} is there twice")
        number[node] = len(number)
        parents.append(parent)
        names.append(name)
    children: list[list[int]] = [[] for _ in parents]
    roots: list[int] = []
    for node_number, parent in enumerate(parents):
        if parent in number:
            children[number[parent]].append(node_number)
        elif parent == _ABSENT:
            roots.append(node_number)
        else:
            raise ConfigurationError("tree", f"no node is called {parent}, a parent")
    if len(roots) != 1:
        raise ConfigurationError("tree", f"{len(roots)} nodes have no parent, needed 1")
    # Whatever stands in the name's column of an inner node, it has none.
    own = [None if kids else name for kids, name in zip(children, names, strict=True)]
    try:
        return tree_of(children, own, roots[0])
    except ValueError as error:
        raise ConfigurationError("tree", str(error)) from error
