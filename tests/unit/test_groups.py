"""Groups: membership on any mask, k-means, ids that stay, exemplars, and a cut from end to end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError
from schemas.fingerprints import Json
from tests.fakes.encoding import DIM, ENCODER_ID
from tests.group_builders import CRIME, TOYS, axis, cut
from workers.grouping.exemplars import exemplars
from workers.grouping.groups import centroid_rows, part_means
from workers.grouping.kmeans import kmeans
from workers.grouping.make_groups import Cut, make_groups
from workers.grouping.stable_ids import stable_ids

NAMES = ("title", "content", "mood")


def parts_of(*rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    parts = np.zeros((len(rows), len(NAMES), DIM), np.float32)
    mask = np.zeros((len(rows), len(NAMES)), np.bool_)
    for index, row in enumerate(rows):
        for name, vector in row.items():
            parts[index, NAMES.index(name)] = vector
            mask[index, NAMES.index(name)] = True
    return parts, mask


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# ---- membership ----------------------------------------------------------------------------


def test_an_item_belongs_to_the_nearest_group():
    parts, mask = parts_of(
        {"title": axis(5), "content": axis(1)},
        {"content": 0.9 * axis(0) + 0.2 * axis(1)},
    )

    rows, cosines = cut().nearest(parts, mask, NAMES)

    assert rows.tolist() == [1, 0]
    assert cosines == pytest.approx([1 / np.sqrt(2), 0.9 / np.hypot(0.9, 0.2)], abs=1e-6)


def test_what_has_no_usable_part_belongs_nowhere():
    parts, mask = parts_of({}, {"mood": axis(0)}, {"content": axis(0)})
    parts[0, 1] = axis(1)  # stands there, but is not there

    rows, cosines = cut().nearest(parts, mask, NAMES)

    assert rows.tolist() == [-1, -1, 0]
    assert cosines[:2].tolist() == [0, 0]


def test_a_missing_part_counts_as_the_mean():
    mean = np.concatenate([axis(3), 0.5 * axis(0)])
    parts, mask = parts_of({"content": axis(1)}, {"title": axis(3), "content": axis(1)})

    groups = cut(mean=mean)
    rows, cosines = groups.nearest(parts, mask, NAMES)

    assert rows.tolist() == [1, 1]
    assert cosines[0] == cosines[1]


def test_parts_are_found_by_name_and_may_be_lacking():
    parts, mask = parts_of({"title": axis(2), "content": axis(1)})

    swapped, _ = cut().nearest(parts[:, [1, 0]], mask[:, [1, 0]], ("content", "title"))
    only, _ = cut().nearest(parts[:, 1:2], mask[:, 1:2], ("content",))
    none, _ = cut().nearest(parts[:, 2:], mask[:, 2:], ("mood",))

    assert [swapped.tolist(), only.tolist(), none.tolist()] == [[1], [1], [-1]]


def test_of_two_groups_as_near_the_first_is_it_and_many_items_are_as_good_as_one():
    parts, mask = parts_of({"content": axis(0) + axis(1)}, {"content": axis(1)})
    many = np.repeat(parts, 5_000, axis=0), np.repeat(mask, 5_000, axis=0)

    rows, _ = cut().nearest(*many, NAMES)

    assert (rows[:5_000] == 0).all()
    assert (rows[5_000:] == 1).all()


def test_parts_of_another_shape_are_refused():
    parts, mask = parts_of({"content": axis(0)})

    with pytest.raises(ValueError, match="of 2 x 8"):
        cut().nearest(parts, mask, ("title", "content"))
    with pytest.raises(ValueError, match="mask"):
        cut().nearest(parts, mask[:, :2], NAMES)


def test_the_mean_of_a_part_is_over_those_that_have_it():
    parts, mask = parts_of({"title": axis(0)}, {"title": axis(1), "content": axis(2)}, {})

    mean = part_means(parts, mask).reshape(3, DIM)

    assert mean[0] == pytest.approx((axis(0) + axis(1)) / 2)
    assert mean[1] == pytest.approx(axis(2))
    assert not mean[2].any()


# ---- k-means -------------------------------------------------------------------------------


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clouds(count: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    owner = np.tile(np.arange(count), each)
    return unit(np.eye(8)[owner] + 0.1 * random.normal(size=(len(owner), 8))), owner


def test_kmeans_finds_clouds_and_numbers_them_as_they_come():
    rows, owner = clouds(5, 20)

    assert kmeans(rows, 5).tolist() == owner.tolist()


def test_kmeans_gives_the_same_groups_every_time():
    rows = unit(np.random.default_rng(1).normal(size=(300, 12)))

    assert np.array_equal(kmeans(rows, 17), kmeans(rows.copy(), 17))


@given(seed=st.integers(0, 50), count=st.integers(1, 30), items=st.integers(1, 40))
def test_kmeans_leaves_no_group_empty_and_no_item_out(seed, count, items):
    rows = unit(np.random.default_rng(seed).normal(size=(items, 4)))

    labels = kmeans(rows, count)

    assert len(labels) == items
    assert set(labels.tolist()) == set(range(labels.max() + 1))
    assert labels.max() < min(count, items)


def test_equal_items_are_one_group():
    assert kmeans(np.tile(axis(0), (9, 1)), 4).tolist() == [0] * 9


def test_kmeans_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 groups"):
        kmeans(np.ones((2, 2), np.float32), 0)
    with pytest.raises(ValueError, match="of 0 rows"):
        kmeans(np.ones((0, 2), np.float32), 2)


# ---- ids that stay -------------------------------------------------------------------------


def ids(old: np.ndarray, new: np.ndarray, old_ids: str, fresh: str) -> str:
    return "".join(stable_ids(old, new, list(old_ids), list(fresh)))


def test_renumbered_groups_keep_their_ids():
    old, new = ints(0, 0, 1, 1, 2, 2), ints(2, 2, 0, 0, 1, 1)

    assert ids(old, new, "abc", "xyz") == "bca"


def test_the_largest_part_of_a_split_group_keeps_its_id():
    old, new = ints(0, 0, 0, 0, 0), ints(0, 0, 1, 1, 1)

    assert ids(old, new, "a", "xy") == "xa"


def test_of_merged_groups_the_largest_lends_its_id():
    old, new = ints(0, 0, 0, 1, 1), ints(0, 0, 0, 0, 0)

    assert ids(old, new, "ab", "x") == "a"


def test_a_group_that_shares_too_little_with_any_is_new():
    old = ints(0, 0, 0, 0, 1, 1, 1, 1)
    new = ints(0, 1, 0, 1, 0, 1, 0, 1)

    assert ids(old, new, "ab", "xy") == "ab"
    assert stable_ids(old, new, ["a", "b"], ["x", "y"], least_overlap=0.5) == ["x", "y"]


def test_items_that_had_no_group_count_against_nobody():
    assert ids(ints(-1, -1, -1, 0, 0), ints(0, 0, 0, 1, 1), "a", "xy") == "xa"
    assert ids(ints(), ints(), "a", "xy") == "xy"


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 5)), max_size=60),
)
def test_no_id_is_given_twice(pairs):
    old = np.array([one for one, _ in pairs], np.int64)
    new = np.array([one for _, one in pairs], np.int64)

    given_out = stable_ids(old, new, list("abcde"), list("uvwxyz"))

    assert len(set(given_out)) == 6
    assert set(given_out) <= set("abcdeuvwxyz")


# ---- exemplars -----------------------------------------------------------------------------


def test_exemplars_are_the_most_central_first_and_at_most_so_many():
    features = unit(np.array([[1, 0.9], [1, 0.1], [1, 0.5], [0, 1]]))
    rows = ints(0, 0, 0, 1)
    entries = [{"title": name} for name in "abcd"]

    shown = exemplars(features, rows, np.eye(2, dtype=np.float32), entries, most=2)

    assert [[one["title"] for one in group] for group in shown] == [["b", "c"], ["d"]]


def test_of_members_as_central_the_first_and_of_the_same_line_one():
    features = np.tile(axis(0, dim=2), (4, 1))
    entries: list[dict[str, Json]] = [
        {"title": "b"},
        {"title": "a"},
        {"title": "b"},
        {"title": "b", "year": 1},
    ]

    (shown,) = exemplars(features, ints(0, 0, 0, 0), axis(0, dim=2)[None], entries)

    assert shown == ({"title": "b"}, {"title": "a"}, {"title": "b", "year": 1})


# ---- a whole cut ---------------------------------------------------------------------------


def catalogue(count: int = 40) -> tuple[list[EntityKey], list[dict], np.ndarray, np.ndarray]:
    """Films of four kinds, told apart by their content."""
    random = np.random.default_rng(8)
    keys = [EntityKey.item(f"{n:03}") for n in range(count)]
    fields = [
        {"title": f"Film {n}", "year": 1990 + n, "genres": [f"g{n % 4}"]} for n in range(count)
    ]
    rows = [
        {
            "title": 0.1 * random.normal(size=DIM),
            "content": axis(n % 4) + 0.05 * random.normal(size=DIM),
        }
        for n in range(count)
    ]
    return keys, fields, *parts_of(*rows)


def make(name: str, keys, fields, parts, mask, *, how: Cut, old=None):
    return make_groups(
        name,
        keys,
        fields,
        parts,
        mask,
        part_names=NAMES,
        encoder_id=ENCODER_ID,
        cut=how,
        old=old,
    )


KMEANS, TREE = Cut("kmeans", groups=4, cap=1), Cut("tree", groups=1, cap=12)


@pytest.mark.parametrize("how", [KMEANS, TREE], ids=["kmeans", "tree"])
def test_a_catalogue_is_cut_into_groups_of_its_kinds(how):
    keys, fields, parts, mask = catalogue()

    made = make("films", keys, fields, parts, mask, how=how)

    rows, cosines = made.groups.nearest(parts, mask, NAMES)
    assert made.members == sum(group.size for group in made.groups.groups) == 40
    assert (made.depth is None) == (how is KMEANS)
    of_one_kind = 0
    for group in made.groups.groups:
        kinds = [one["genres"][0] for one in group.exemplars]
        of_one_kind += max(map(kinds.count, kinds))
    assert of_one_kind >= 36
    assert len(set(rows[:4].tolist())) == 4
    assert np.median(cosines) > 0.9
    assert np.linalg.norm(made.groups.centroids, axis=1) == pytest.approx(1, abs=1e-6)
    assert [group.id for group in made.groups.groups[:2]] == ["films-0", "films-1"]


@pytest.mark.parametrize("how", [KMEANS, TREE], ids=["kmeans", "tree"])
def test_the_same_catalogue_gives_the_same_groups(how):
    first, again = (make("films", *catalogue(), how=how).groups for _ in range(2))

    assert first.groups == again.groups
    assert np.array_equal(first.centroids, again.centroids)


def test_a_recut_keeps_the_ids_of_groups_whose_members_stayed_together():
    keys, fields, parts, mask = catalogue()
    old = make("films", keys, fields, parts, mask, how=KMEANS).groups
    more = catalogue(60)

    made = make("films-2", *more, how=KMEANS, old=old)

    by_id = {group.id: group for group in made.groups.groups}
    assert made.kept == 4
    for group in old.groups:
        assert group.exemplars[0]["genres"] == by_id[group.id].exemplars[0]["genres"]
    assert [group.size for group in by_id.values()] == [15] * 4


def test_a_recut_of_another_encoder_is_refused():
    with pytest.raises(ConfigurationError, match="films is of hash-encoder"):
        make_groups(
            "films-2",
            *catalogue(),
            part_names=NAMES,
            encoder_id="another",
            cut=KMEANS,
            old=cut(),
        )


def test_items_without_a_title_to_show_are_in_no_group():
    keys, fields, parts, mask = catalogue(8)
    fields[0] = {"title": 42}
    fields[1] = {"title": "\u200b"}
    mask[2] = False

    made = make("films", keys, fields, parts, mask, how=KMEANS)

    assert made.members == 5
    assert all(group.exemplars for group in made.groups.groups)


def test_a_catalogue_without_anything_to_group_is_refused():
    keys, _, parts, mask = catalogue(3)

    with pytest.raises(ConfigurationError, match="none of 3 items"):
        make("films", keys, [{}, {}, {}], parts, mask, how=KMEANS)


def test_centroids_are_mean_directions():
    features = np.stack([axis(0), axis(1), axis(2)])

    centroids = centroid_rows(features, ints(0, 0, 1), 3)

    assert centroids[0] == pytest.approx((axis(0) + axis(1)) / np.sqrt(2))
    assert centroids[1] == pytest.approx(axis(2))
    assert not centroids[2].any()


def test_groups_of_the_builders_are_what_they_say():
    assert [group.id for group in (CRIME, TOYS)] == ["films-0", "films-1"]
