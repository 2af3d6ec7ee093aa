"""The LEARN network: what a position may see, and that torch and numpy make the same of it."""

import numpy as np
import pytest
import torch

from tests.fakes.encoding import DIM, PARTS
from tests.learn_builders import INPUTS, learn_adaptor, small_model
from workers.adaptors.adaptor import unit_rows
from workers.training.learn_start import start_at_mean

LAYERS = [1, 3]
ITEMS = 30


def hidden_of(model, seed=0, count=ITEMS):
    generator = torch.Generator().manual_seed(seed)
    return model.hidden(torch.randn(count, INPUTS, generator=generator)).detach()


def outputs(model, hidden, *sequences, at=None):
    rows = torch.full((len(sequences), max(map(len, sequences))), -1)
    for line, sequence in enumerate(sequences):
        rows[line, : len(sequence)] = torch.tensor(sequence)
    with torch.no_grad():
        return model.sequences(hidden, rows, at).numpy()


@pytest.mark.parametrize("layers", LAYERS)
def test_an_output_depends_on_no_later_item(layers):
    model = small_model(layers=layers)
    hidden = hidden_of(model)

    before, after = outputs(model, hidden, [3, 7, 1, 9, 4], [3, 7, 1, 12, 20])

    np.testing.assert_allclose(before[:3], after[:3], atol=1e-6)
    assert np.abs(before[3:] - after[3:]).max() > 0.01


@pytest.mark.parametrize("layers", LAYERS)
def test_an_output_depends_on_every_earlier_item(layers):
    model = small_model(layers=layers)
    hidden = hidden_of(model)

    before, after = outputs(model, hidden, [3, 7, 1, 9], [5, 7, 1, 9])

    assert np.abs(before[3] - after[3]).max() > 1e-4


@pytest.mark.parametrize("layers", LAYERS)
def test_padding_changes_nothing(layers):
    model = small_model(layers=layers)
    hidden = hidden_of(model)

    (alone,) = outputs(model, hidden, [3, 7, 1])
    padded, _ = outputs(model, hidden, [3, 7, 1], [9, 8, 4, 2, 11, 6])

    np.testing.assert_allclose(padded[:3], alone, atol=1e-6)


def test_one_layer_sees_a_set_of_earlier_items_and_the_last_one():
    model = small_model(layers=1)
    hidden = hidden_of(model)

    first, permuted, other_end = outputs(model, hidden, [3, 7, 1, 9], [1, 3, 7, 9], [3, 7, 9, 1])

    np.testing.assert_allclose(first[-1], permuted[-1], atol=1e-6)
    assert np.abs(first[-1] - other_end[-1]).max() > 1e-4


def test_more_layers_know_order_by_the_mask_alone():
    model = small_model(layers=2)
    hidden = hidden_of(model)

    first, permuted = outputs(model, hidden, [3, 7, 1, 9], [7, 3, 1, 9])

    # Nothing but the mask tells [3, 7] from [7, 3]: what one position makes of its item differs.
    assert np.abs(first[-1] - permuted[-1]).max() > 1e-6


@pytest.mark.parametrize("layers", LAYERS)
def test_the_item_tower_is_the_network_on_a_sequence_of_one(layers):
    model = small_model(layers=layers)
    hidden = hidden_of(model)

    with torch.no_grad():
        alone = model.alone(hidden).numpy()
    sequences = outputs(model, hidden, *([row] for row in range(ITEMS)))[:, 0]
    first_of_many = outputs(model, hidden, *([row, (row + 1) % ITEMS] for row in range(ITEMS)))

    np.testing.assert_allclose(alone, sequences, atol=1e-6)
    np.testing.assert_allclose(alone, first_of_many[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


def test_a_lone_layer_among_all_items_is_the_layer_over_gathered_positions(monkeypatch):
    model = small_model(layers=1)
    hidden = hidden_of(model)
    sequences = ([3, 7, 1, 9], [5], [2, 29, 0])
    at = torch.tensor([[3, 1], [0, 0], [2, 0]])

    among = outputs(model, hidden, *sequences, at=at)
    monkeypatch.setattr("workers.training.learn_model._DENSE_ITEMS", 0)
    gathered = outputs(model, hidden, *sequences, at=at)

    np.testing.assert_allclose(among, gathered, atol=1e-6)


def raw_items(count, seed=1):
    random = np.random.default_rng(seed)
    parts = random.standard_normal((count, len(PARTS), DIM)).astype(np.float32)
    mask = random.random((count, len(PARTS))) < 0.7
    mask[:, 0] = True
    return np.where(mask[:, :, None], parts, np.float32(0)), mask


@pytest.mark.parametrize("layers", LAYERS)
def test_numpy_serves_what_torch_was_trained_to(layers):
    model = small_model(layers=layers)
    adaptor = learn_adaptor(model)
    parts, mask = raw_items(ITEMS)
    random = np.random.default_rng(2)
    lengths = [1, 8, 5, 2, 7]
    rows = np.full((len(lengths), 8), -1)
    for line, length in enumerate(lengths):
        rows[line, :length] = random.permutation(ITEMS)[:length]

    centred = np.where(mask[:, :, None], parts - adaptor.network.mean, np.float32(0))
    with torch.no_grad():
        hidden = model.hidden(torch.from_numpy(centred.reshape(ITEMS, -1)))
        items = model.alone(hidden).numpy()
        at = torch.tensor([[length - 1] for length in lengths])
        users = model.sequences(hidden, torch.from_numpy(rows), at)[:, 0].numpy()
    served = adaptor.network.entering(adaptor.network.hidden(parts, mask))

    np.testing.assert_allclose(adaptor.apply(parts, mask), items, atol=1e-4)
    np.testing.assert_allclose(adaptor.network.newest(served, rows), users, atol=1e-4)


def test_a_batch_of_one_is_a_batch_of_many():
    adaptor = learn_adaptor(small_model())
    parts, mask = raw_items(ITEMS)
    hidden = adaptor.network.entering(adaptor.network.hidden(parts, mask))
    rows = np.array([[4, 1, 2, -1], [9, -1, -1, -1], [5, 6, 7, 8]])

    many = adaptor.apply(parts, mask)
    ones = np.concatenate([adaptor.apply(parts[[n]], mask[[n]]) for n in range(ITEMS)])
    users = adaptor.network.newest(hidden, rows)
    lone_users = np.concatenate([adaptor.network.newest(hidden, rows[[n]]) for n in range(3)])

    np.testing.assert_allclose(ones, many, atol=1e-3)
    np.testing.assert_allclose(lone_users, users, atol=1e-3)


def test_many_users_are_taken_a_bounded_number_at_a_time(monkeypatch):
    adaptor = learn_adaptor(small_model())
    hidden = adaptor.network.entering(adaptor.network.hidden(*raw_items(ITEMS)))
    random = np.random.default_rng(4)
    rows = np.stack([random.permutation(ITEMS)[:8] for _ in range(20)])

    whole = adaptor.network.newest(hidden, rows)
    monkeypatch.setattr("workers.adaptors.learn_forward._TOKENS_AT_ONCE", 24)

    np.testing.assert_allclose(adaptor.network.newest(hidden, rows), whole, atol=1e-6)


def test_a_sequence_without_items_gives_zeros():
    adaptor = learn_adaptor(small_model())
    hidden = adaptor.network.entering(adaptor.network.hidden(*raw_items(ITEMS)))

    vectors = adaptor.network.newest(hidden, np.array([[-1, -1], [3, -1]]))

    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-5)


def test_whatever_stands_in_a_missing_part_has_no_say():
    adaptor = learn_adaptor(small_model())
    parts, mask = raw_items(5)

    with_rubbish = np.where(mask[:, :, None], parts, np.float32(7))

    np.testing.assert_array_equal(adaptor.apply(with_rubbish, mask), adaptor.apply(parts, mask))


def test_an_item_without_any_part_gets_the_default():
    adaptor = learn_adaptor(small_model())
    parts, mask = raw_items(3)
    mask[1] = False

    vectors = adaptor.apply(parts, mask)

    np.testing.assert_array_equal(vectors[1], adaptor.default)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_a_new_network_starts_at_the_mean_of_what_a_user_had(layers):
    model = small_model(layers=layers, width=INPUTS, dim=INPUTS)
    start_at_mean(model, torch.Generator().manual_seed(1))
    components = torch.randn(40, INPUTS, generator=torch.Generator().manual_seed(2))
    hidden = model.hidden(components).detach()

    (user,) = outputs(model, hidden, list(range(20)))
    (turned,) = outputs(model, hidden, [*range(18, -1, -1), 19])
    with torch.no_grad():
        items = model.alone(hidden).numpy()

    means = unit_rows(components[:20].mean(dim=0, keepdim=True).numpy())
    assert float((user[-1] * means[0]).sum()) > 0.9
    np.testing.assert_allclose(user[-1], turned[-1], atol=1e-5)  # all items weigh alike
    assert float((items * unit_rows(components.numpy())).sum(axis=1).mean()) > 0.95
