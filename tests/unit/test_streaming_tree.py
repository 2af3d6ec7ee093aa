"""StreaKHC: where a new leaf goes, what nodes remember, and what a removal leaves behind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.grouping.streakhc import IsolationKernel, StreamingTree, grow
from workers.grouping.tree import Tree


def points(count: int, dim: int = 6, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def two_clouds(each: int) -> np.ndarray:
    rows = 0.05 * points(2 * each)
    rows[:each, 0] += 1
    rows[each:, 1] += 1
    return rows


def shape(tree: Tree, node: int = 0) -> object:
    """The tree as nested pairs of names; leaves by name."""
    kids = tree.children[node]
    return tuple(shape(tree, kid) for kid in kids) if kids else tree.names[node]


def planted(rows: np.ndarray, order: list[int], kernel: IsolationKernel) -> StreamingTree:
    tree = StreamingTree(kernel)
    phi = kernel.map(rows)
    for index in order:
        tree.insert(str(index), phi[index])
    return tree


def reference(rows: np.ndarray, order: list[int], kernel: IsolationKernel) -> object:
    """The rule of the paper, word by word: dense vectors, float cosines, nested lists."""
    width = kernel.subsets * kernel.psi
    dense = np.zeros((len(rows), width))
    np.put_along_axis(dense, kernel.map(rows), 1.0, axis=1)

    def total(node) -> np.ndarray:
        return dense[node] if isinstance(node, int) else total(node[0]) + total(node[1])

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return round(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), 12)

    def put(node, index: int):
        if isinstance(node, int):
            return (node, index)
        left, right = node
        phi = dense[index]
        if cosine(phi, total(left)) >= cosine(phi, total(right)):
            return (put(left, index), right)
        return (left, put(right, index))

    root = order[0]
    for index in order[1:]:
        root = put(root, index)

    def named(node):
        return str(node) if isinstance(node, int) else tuple(map(named, node))

    return named(root)


def test_phi_is_the_nearest_point_of_every_subset():
    rows = points(20)
    kernel = IsolationKernel(rows, subsets=5, psi=3, seed=1)

    phi = kernel.map(rows)

    assert phi.shape == (20, 5)
    assert (phi // 3 == np.arange(5)).all()
    random = np.random.default_rng(1)
    for subset in range(5):
        chosen = rows[random.choice(20, 3, replace=False)]
        distances = np.linalg.norm(rows[:, None] - chosen[None], axis=2)
        assert (phi[:, subset] - 3 * subset == distances.argmin(axis=1)).all()


def test_leaves_go_where_the_paper_puts_them():
    rows = points(60)
    kernel = IsolationKernel(rows, subsets=40, psi=3, seed=2)
    order = np.random.default_rng(3).permutation(60).tolist()

    tree = planted(rows, order, kernel)

    assert shape(tree.tree()) == reference(rows, order, kernel)


def test_equal_rows_go_left_and_chain_up_without_harm():
    rows = np.ones((400, 3), np.float32)
    kernel = IsolationKernel(rows, subsets=4, psi=3)

    tree = planted(rows, list(range(400)), kernel).tree()

    assert tree.leaf_counts[0] == 400
    assert max(tree.leaf_depths()) == 399


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=60),
    seed=st.integers(0, 3),
)
def test_a_node_always_holds_the_sum_of_its_leaves(steps, seed):
    """Whatever came and went: every S is what its leaves add up to, and |S|^2 with it."""
    rows = points(12, seed=seed)
    kernel = IsolationKernel(rows, subsets=6, psi=2, seed=seed)
    phi = kernel.map(rows)
    tree = StreamingTree(kernel)
    inside: set[int] = set()
    for add, index in steps:
        if add and index not in inside:
            tree.insert(str(index), phi[index])
            inside.add(index)
        elif not add and index in inside:
            tree.remove(str(index))
            inside.remove(index)

    assert len(tree) == len(inside)
    if not inside:
        with pytest.raises(ValueError, match="no leaf"):
            tree.tree()
        return
    whole = tree.tree()
    assert sorted(whole.leaves(0)) == sorted(map(str, inside))
    dense = np.zeros((12, 12), np.int64)
    np.put_along_axis(dense, phi, 1, axis=1)
    sums = sorted(
        tuple(dense[[int(name) for name in whole.leaves(node)]].sum(axis=0).tolist())
        for node in range(len(whole.parents))
    )
    assert sorted(tree.sums()) == sums


def test_removing_what_came_last_undoes_it():
    rows = points(30)
    kernel = IsolationKernel(rows, subsets=20, psi=3)
    tree = planted(rows, list(range(29)), kernel)
    before = shape(tree.tree())

    tree.insert("29", kernel.map(rows)[29])
    tree.remove("29")

    assert shape(tree.tree()) == before


def test_a_name_is_taken_once_and_removed_once():
    rows = points(4)
    kernel = IsolationKernel(rows, subsets=2, psi=2)
    tree = planted(rows, [0, 1], kernel)

    with pytest.raises(ValueError, match="'1' is in the tree"):
        tree.insert("1", kernel.map(rows)[1])
    tree.remove("1")
    with pytest.raises(KeyError):
        tree.remove("1")


def test_clouds_end_up_on_two_sides():
    rows = two_clouds(40)

    tree = grow([str(n) for n in range(80)], rows, subsets=100, seed=5).tree()

    sides = [set(map(int, tree.leaves(child))) for child in tree.children[0]]
    assert sorted(sides, key=min) == [set(range(40)), set(range(40, 80))]


def test_the_seed_decides_the_tree():
    rows, names = points(50), [str(n) for n in range(50)]

    first, again, other = (grow(names, rows, subsets=30, seed=seed).tree() for seed in (1, 1, 2))

    assert shape(first) == shape(again) != shape(other)


def test_a_sample_too_small_for_a_subset_is_refused():
    with pytest.raises(ValueError, match="3 from 2 rows"):
        IsolationKernel(points(2), psi=3)
    assert grow(["a", "b"], points(2)).tree().leaf_counts[0] == 2
