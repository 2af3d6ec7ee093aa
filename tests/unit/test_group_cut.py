"""The group cut: which nodes become groups, how they are numbered, and what a tree file may be."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from tests.cli_runner import run_freshet
from workers.grouping.cut import cut_tree, group_numbers
from workers.grouping.depth import Depth, depth_of
from workers.grouping.tree import Tree, read_tree, tree_of


def rows(*lines: str) -> list[str]:
    return [line.replace(" ", "\t") + "\n" for line in lines]


# Leaves by twos: ((1 2) (3 4)) ((5 6) 7).
TREE = rows(
    "r None None 7",
    "a r None 4",
    "b r None 3",
    "c a None 2",
    "d a None 2",
    "e b None 2",
    "s b 7 1",
    "l1 c 1 1",
    "l2 c 2 1",
    "l3 d 3 1",
    "l4 d 4 1",
    "l5 e 5 1",
    "l6 e 6 1",
)


def members(tree: Tree, cap: int) -> list[list[str]]:
    return [list(tree.leaves(node)) for node in cut_tree(tree, cap)]


def chain(length: int) -> Tree:
    """A tree as deep as it has leaves: every inner node has a leaf and the rest."""
    children = [(2 * n + 1, 2 * n + 2) for n in range(length - 1)]
    nodes: list[tuple[int, ...]] = [() for _ in range(2 * length - 1)]
    names: list[str | None] = [None] * len(nodes)
    for n, pair in enumerate(children):
        nodes[2 * n] = pair
        names[2 * n + 1] = str(n)
    names[-1] = str(length - 1)
    return tree_of(nodes, names, 0)


@pytest.mark.parametrize(
    ("cap", "groups"),
    [
        (7, [["1", "2", "3", "4", "5", "6", "7"]]),
        (6, [["1", "2", "3", "4"], ["5", "6", "7"]]),
        (3, [["5", "6", "7"], ["1", "2"], ["3", "4"]]),
        (2, [["1", "2"], ["3", "4"], ["5", "6"], ["7"]]),
        (1, [["7"], ["1"], ["2"], ["3"], ["4"], ["5"], ["6"]]),
    ],
)
def test_a_node_is_a_group_if_it_fits_and_its_parent_does_not(cap, groups):
    assert members(read_tree(TREE), cap) == groups


def test_of_groups_of_one_size_the_one_with_the_larger_parent_comes_first():
    tree = read_tree(
        rows(
            "r None None 9",
            "a r None 3",
            "b r None 6",
            "x a x 1",
            "c a None 2",
            "d b None 4",
            "e b None 2",
            *(f"{name} {parent} {name} 1" for name, parent in zip("1234", "ddcc", strict=True)),
            "f d None 2",
            "5 f 5 1",
            "6 f 6 1",
            "7 e 7 1",
            "8 e 8 1",
        )
    )

    assert members(tree, 2) == [["7", "8"], ["5", "6"], ["3", "4"], ["1"], ["2"], ["x"]]


def test_numbers_begin_at_one():
    assert group_numbers(read_tree(TREE), 3) == {
        "5": 1,
        "6": 1,
        "7": 1,
        "1": 2,
        "2": 2,
        "3": 3,
        "4": 3,
    }


@given(parents=st.lists(st.integers(0, 10**6), min_size=0, max_size=60), cap=st.integers(1, 70))
def test_a_cut_is_a_partition_into_the_largest_parts_that_fit(parents, cap):
    """Trees grow by splitting a leaf, as clusterers do it."""
    children: list[tuple[int, ...]] = [()]
    leaves = [0]
    for choice in parents:
        node = leaves.pop(choice % len(leaves))
        children[node] = (len(children), len(children) + 1)
        leaves += children[node]
        children += [(), ()]
    names = [None if kids else str(node) for node, kids in enumerate(children)]
    tree = tree_of(children, names, 0)

    groups = cut_tree(tree, cap)

    held = [name for node in groups for name in tree.leaves(node)]
    assert sorted(held) == sorted(name for name in names if name is not None)
    counts = [tree.leaf_counts[node] for node in groups]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] <= cap
    for node in groups:
        assert node == 0 or tree.leaf_counts[tree.parents[node]] > cap


def test_a_tree_thousands_of_levels_deep_is_cut():
    tree = chain(5_000)

    numbers = group_numbers(tree, 100)

    assert len(numbers) == 5_000
    assert len(set(numbers.values())) == 4_901
    assert [numbers["4999"], numbers["4900"], numbers["0"]] == [1, 1, 2]
    assert depth_of(tree) == Depth(5_000, 2500.5, 4_999)


def test_a_single_leaf_is_one_group():
    tree = read_tree(rows("r None 42 1"))

    assert group_numbers(tree, 1) == {"42": 1}
    assert depth_of(tree) == Depth(1, 0, 0)


def test_a_cap_below_one_leaves_nothing():
    with pytest.raises(ValueError, match="cap of 0"):
        cut_tree(read_tree(TREE), 0)


def test_rows_may_come_in_any_order_and_counts_are_not_trusted():
    shuffled = [line.rsplit("\t", 1)[0] + "\t99\n" for line in reversed(TREE)]

    assert {frozenset(group) for group in members(read_tree(shuffled), 3)} == {
        frozenset(group) for group in members(read_tree(TREE), 3)
    }


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ([], "0 nodes have no parent"),
        (rows("a None None", "b None None"), "2 nodes have no parent"),
        (rows("r None None", "a x 1"), "no node is called x"),
        (rows("r None None", "a r 1", "a r 2"), "line 3: node a is there twice"),
        (rows("r None None", "a r 1", "b r 1"), "two leaves are called '1'"),
        (rows("r None 1", "a b None", "b a None"), "2 nodes are not below the root"),
        (["r\tNone\n"], "line 1: needs node, parent and leaf name"),
    ],
)
def test_a_file_that_is_no_tree_is_refused_saying_why(lines, detail):
    with pytest.raises(ConfigurationError, match=detail):
        read_tree(lines)


def test_the_alarm_sounds_for_trees_that_chain_up():
    healthy = Depth(3_706, 17.3, 34)
    chained = Depth(11_906, 140.1, 1_219)

    assert not healthy.is_degenerate(4.0)
    assert chained.is_degenerate(4.0)
    assert depth_of(chain(300)).is_degenerate(4.0)
    assert Depth(4_096, 13.0, 16 * 12 + 1).is_degenerate(4.0)
    assert not Depth(4_096, 13.0, 16 * 12).is_degenerate(4.0)
    assert math.isclose(Depth(4_096, 13.0, 20).ideal, 12.0)


def test_the_command_writes_the_group_of_every_leaf(tmp_path, capsys):
    tree, out = tmp_path / "tree.tsv", tmp_path / "groups.json"
    tree.write_text("".join(TREE))

    written = run_freshet(capsys, "groups", "cut", str(tree), "--cap", "3", "--out", str(out))
    printed = run_freshet(capsys, "groups", "cut", str(tree), "--cap", "3")

    assert (written.code, printed.code) == (0, 0)
    assert written.out == ""
    assert json.loads(out.read_bytes()) == json.loads(printed.out)
    assert list(json.loads(printed.out).items())[:2] == [("1", 2), ("2", 2)]
    assert "3 groups of 7 leaves" in written.err


def test_the_command_refuses_what_is_no_tree(tmp_path, capsys):
    tree = tmp_path / "tree.tsv"
    tree.write_text("nothing here\n")

    ran = run_freshet(capsys, "groups", "cut", str(tree), "--cap", "3")

    assert ran.code == 2
    assert ran.err.startswith("freshet: tree: line 1")
