"""LEARN's losses against sums by hand."""

import math

import pytest
import torch

from workers.training.learn_loss import NO_ITEM, dense_all_action, full_softmax

SCALE = torch.tensor(5.0)


def unit(*angles):
    """Unit vectors in the plane, one an angle in degrees."""
    turned = torch.tensor(angles, dtype=torch.float32) * math.pi / 180
    return torch.stack([turned.cos(), turned.sin()], dim=-1)


def cosine(first, second):
    return math.cos(math.radians(first - second))


def by_hand(user, own, *others):
    """-log softmax of a target among itself and other users' targets; angles."""
    scores = [math.exp(5 * cosine(user, item)) for item in (own, *others)]
    return -math.log(scores[0] / sum(scores))


def test_two_users_with_one_target_each_are_a_softmax_over_both_targets():
    users, items = unit(0, 90)[:, None], unit(20, 60)[:, None]

    loss = dense_all_action(users, items, torch.tensor([[1], [2]]), SCALE)

    assert loss.item() == pytest.approx((by_hand(0, 20, 60) + by_hand(90, 60, 20)) / 2, rel=1e-5)


def test_a_users_other_targets_are_in_no_denominator_of_theirs():
    users = unit(0, 90)[:, None]
    items = torch.stack([unit(20, 40), unit(60, 80)])

    loss = dense_all_action(users, items, torch.tensor([[1, 2], [3, 4]]), SCALE)

    pairs = [by_hand(0, own, 60, 80) for own in (20, 40)]
    pairs += [by_hand(90, own, 20, 40) for own in (60, 80)]
    assert loss.item() == pytest.approx(sum(pairs) / 4, rel=1e-5)


def test_every_position_of_a_user_meets_every_target():
    users = torch.stack([unit(0, 30), unit(90, 70)])
    items = unit(20, 60)[:, None]

    loss = dense_all_action(users, items, torch.tensor([[1], [2]]), SCALE)

    pairs = [by_hand(user, 20, 60) for user in (0, 30)]
    pairs += [by_hand(user, 60, 20) for user in (90, 70)]
    assert loss.item() == pytest.approx(sum(pairs) / 4, rel=1e-5)


def test_an_item_that_two_users_share_is_no_negative_of_either():
    users = unit(0, 90)[:, None]
    items = torch.stack([unit(20, 40), unit(20, 80)])

    loss = dense_all_action(users, items, torch.tensor([[1, 2], [1, 4]]), SCALE)

    pairs = [by_hand(0, own, 80) for own in (20, 40)]
    pairs += [by_hand(90, own, 40) for own in (20, 80)]
    assert loss.item() == pytest.approx(sum(pairs) / 4, rel=1e-5)


def test_padding_is_neither_a_target_nor_a_negative():
    users = unit(0, 90)[:, None]
    items = torch.stack([unit(20, 40), unit(60, 80)])

    padded = dense_all_action(users, items, torch.tensor([[1, NO_ITEM], [3, 4]]), SCALE)

    pairs = [by_hand(0, 20, 60, 80), *(by_hand(90, own, 20) for own in (60, 80))]
    assert padded.item() == pytest.approx(sum(pairs) / 3, rel=1e-5)


def test_no_pair_at_all_is_no_loss():
    users, items = unit(0, 90)[:, None], unit(20, 60)[:, None]

    loss = dense_all_action(users, items, torch.tensor([[NO_ITEM], [NO_ITEM]]), SCALE)

    assert loss.item() == 0


def test_full_softmax_tells_a_target_from_all_that_are_none():
    candidates = unit(20, 40, 60, 80)
    found = torch.tensor([[True, True, False, False]])

    loss = full_softmax(unit(10), candidates, found, SCALE)

    expected = (by_hand(10, 20, 60, 80) + by_hand(10, 40, 60, 80)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_users_count_alike_however_much_they_did():
    candidates = unit(0, 20, 40, 60, 80)
    found = torch.tensor([[False, True, True, True, False], [True, *[False] * 4]])

    loss = full_softmax(unit(10, 50), candidates, found, SCALE)

    first = sum(by_hand(10, own, 0, 80) for own in (20, 40, 60)) / 3
    second = by_hand(50, 0, 20, 40, 60, 80)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)
