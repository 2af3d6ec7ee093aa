"""The group cut: a tree of similar items, cut from the top into groups of bounded size. Pure.

A node with at most `cap` leaves becomes a group if its parent has more. Groups are numbered from 1
in the order in which a queue gives them out that holds the root first, always gives out the node
with the most leaves (of several, the one put in first), and gets the children of every node that is
too large: the largest group is number 1. Measured on the trees that REKI (arXiv 2408.10520)
published: the same groups, with the same numbers.
"""

import heapq

from workers.grouping.tree import Tree


def cut_tree(tree: Tree, cap: int) -> list[int]:
    """Return the nodes that are the groups, group 1 first; raises ValueError for a cap below 1."""
    if cap < 1:
        raise ValueError(f"a cap of {cap} leaves nothing")
    groups: list[int] = []
    put_in = 0
    queue = [(-tree.leaf_counts[0], put_in, 0)]
    while queue:
        minus_count, _, node = heapq.heappop(queue)
        if -minus_count <= cap:
            groups.append(node)
            continue
        for child in tree.children[node]:
            put_in += 1
            heapq.heappush(queue, (-tree.leaf_counts[child], put_in, child))
    return groups


def group_numbers(tree: Tree, cap: int) -> dict[str, int]:
    """Return the number of the group that each leaf belongs to; raises ValueError."""
    return {
        name: number
        for number, node in enumerate(cut_tree(tree, cap), start=1)
        for name in tree.leaves(node)
    }
