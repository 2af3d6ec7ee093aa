"""The LEARN space as it serves: which events of a history count, and how it is loaded."""

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.fakes.encoding import DIM, PARTS, HashEncoder
from tests.learn_builders import learn_adaptor, small_model
from tests.space_builders import RAW
from workers.adaptors.space_files import load_space, save_space
from workers.encoding.parity import Golden
from workers.towers.chosen_history import newest_chosen
from workers.towers.learn_tower import LearnTower
from workers.towers.load_towers import TowerOptions, tower_of
from workers.towers.user_tower import PADDING

ITEMS = np.random.default_rng(1).standard_normal((12, len(PARTS) * DIM)).astype(np.float32)
TOWER = LearnTower(learn_adaptor(small_model()))


def apply(rows, weights=None, at_ms=None, items=ITEMS, tower=TOWER):
    rows = np.array(rows)
    weights = np.ones(rows.shape) if weights is None else np.array(weights)
    at_ms = np.tile(np.arange(rows.shape[1]), (len(rows), 1)) if at_ms is None else np.array(at_ms)
    return tower.apply(
        tower.prepare(items), rows, weights.astype(np.float32), at_ms.astype(np.int64)
    )


def chosen(rows, weights, at_ms, count=3):
    return newest_chosen(np.array(rows), np.array(weights), np.array(at_ms), count).tolist()


def test_the_newest_chosen_items_are_chosen_oldest_first():
    assert chosen([[4, 5, 6, 7]], [[1, 1, 1, 1]], [[40, 10, 30, 20]]) == [[7, 6, 4]]


def test_what_was_not_liked_is_passed_over():
    assert chosen([[4, 5, 6]], [[1, -1, 0]], [[1, 2, 3]]) == [[4]]


def test_an_item_stands_once_where_it_was_liked_last():
    assert chosen([[4, 5, 4, 6]], [[1, 1, 1, 1]], [[1, 2, 3, 4]]) == [[5, 4, 6]]


def test_shorter_choices_are_padded_behind():
    rows = [[4, PADDING, 5], [PADDING, 6, PADDING]]

    assert chosen(rows, np.ones((2, 3)), [[1, 0, 2], [0, 3, 0]]) == [[4, 5], [6, PADDING]]


def test_of_who_liked_nothing_the_newest_items_of_any_weight_are_chosen():
    rows = [[4, 5, 6, 7, 4], [4, 5, 6, 7, 4]]
    weights = [[-1, -0.5, -1, -0.1, -1], [-1, -0.5, 0.1, -0.1, -1]]
    times = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]

    assert chosen(rows, weights, times) == [[6, 7, 4], [6, PADDING, PADDING]]


def test_without_events_nothing_is_chosen():
    assert chosen([[PADDING], [PADDING]], [[-1], [1]], [[1], [1]]) == [[], []]
    assert chosen(np.zeros((2, 0), int), np.zeros((2, 0)), np.zeros((2, 0))) == [[], []]


def test_a_user_of_one_item_is_that_item():
    parts = ITEMS.reshape(len(ITEMS), len(PARTS), DIM)
    mask = np.ones(parts.shape[:2], np.bool_)

    vectors, made = apply([[3], [7]])

    assert made.all()
    np.testing.assert_allclose(vectors, TOWER.adaptor.apply(parts, mask)[[3, 7]], atol=1e-5)


def test_who_liked_nothing_is_what_they_met_and_who_met_nothing_has_no_vector():
    vectors, made = apply([[3, 4], [PADDING, PADDING]], [[-1, -0.5], [1, 1]])
    liked, _ = apply([[3, 4]])

    assert made.tolist() == [True, False]
    np.testing.assert_allclose(vectors[0], liked[0], atol=1e-6)
    assert not vectors[1].any()


def test_an_item_without_parts_is_left_out():
    items = ITEMS.copy()
    items[4] = 0

    with_it, _ = apply([[3, 4, 7]], items=items)
    without, _ = apply([[3, 7]], items=items)

    np.testing.assert_allclose(with_it, without, atol=1e-6)


def test_only_as_many_items_count_as_the_network_was_trained_for():
    tower = LearnTower(learn_adaptor(small_model(history=2)))

    long, _ = apply([[1, 2, 3, 4]], tower=tower)
    short, _ = apply([[3, 4]], tower=tower)

    np.testing.assert_allclose(long, short, atol=1e-6)


def test_a_batch_without_items_makes_nothing():
    vectors, made = apply([[PADDING]], items=np.zeros((0, len(PARTS) * DIM), np.float32))

    assert vectors.shape == (1, TOWER.space.dim)
    assert made.tolist() == [False]


def test_users_of_a_batch_do_not_see_each_other():
    together, _ = apply([[1, 2, 3], [4, 5, PADDING], [9, PADDING, PADDING]])

    for row, history in enumerate(([1, 2, 3], [4, 5], [9])):
        alone, _ = apply([history])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-3)


def test_its_items_are_read_in_the_raw_space():
    assert TOWER.input_space.name == RAW
    assert TOWER.input_space.dim == len(PARTS) * DIM


@pytest.fixture
def saved(tmp_path):
    save_space(tmp_path, TOWER.adaptor, Golden.record(HashEncoder(), ("golden",)))
    return tmp_path


def test_a_saved_space_serves_both_towers(saved):
    loaded = load_space(saved, "learn-1")
    tower = tower_of(loaded.space, TowerOptions(1.0, spaces_dir=saved))

    expected, _ = apply([[1, 2, 3]])
    got, _ = apply([[1, 2, 3]], tower=tower)

    np.testing.assert_array_equal(got, expected)
    assert loaded.space == TOWER.space


def test_another_space_of_the_name_is_refused(saved):
    other = learn_adaptor(small_model(dim=5)).space

    with pytest.raises(ConfigurationError, match="another space of that name"):
        tower_of(other, TowerOptions(1.0, spaces_dir=saved))


@pytest.mark.parametrize(
    ("fitted_on", "told"),
    [
        ({"heads": "four"}, "fitted_on.heads is 'four'"),
        ({"width": 32}, "tensor content.weight"),
        ({"layers": 1}, r"unknown tensors layers\.1"),
        ({"dim": 7}, "dim is 6, that of its network 7"),
        ({"raw_space": 3}, "does not name its raw space"),
        ({"centres": 4}, "tensor centres is missing"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(fitted_on, told):
    adaptor = TOWER.adaptor
    changed = adaptor.space.model_copy(
        update={"fitted_on": {**adaptor.space.fitted_on, **fitted_on}}
    )

    with pytest.raises(ConfigurationError, match=told):
        type(adaptor).from_tensors(changed, adaptor.tensors())
