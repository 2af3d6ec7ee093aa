"""The ranker's side: features from live vectors, and the LEARN-Adaptor."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workers.live.vectors import Vectors
from workers.rankers.learn_adaptor import LearnAdaptor, WithFeatures, conversion_loss
from workers.rankers.live_features import LiveFeatures, training_log

DIM = 6


def vectors(count: int, *, space: str = "learn", missing: tuple[int, ...] = ()) -> Vectors:
    found = ~np.isin(np.arange(count), missing)
    numbers = np.where(found, np.arange(count), -1).astype(np.int64)
    values = np.random.default_rng(count).standard_normal((count, DIM)).astype(np.float16)
    return Vectors(space, values, found, found.astype(np.uint8), *[numbers] * 6)


class Ranker(nn.Module):
    """A ranker of four features that may take others beside them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.wider = WithFeatures(self.first, width)

    def forward(self, existing: Tensor, features: Tensor | None) -> Tensor:
        hidden = self.first(existing) if features is None else self.wider(existing, features)
        return torch.as_tensor(self.last(torch.relu(hidden)))


def inputs(count: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    found = torch.tensor([True] * (count - 1) + [False])
    return torch.randn(count, DIM), torch.randn(count, DIM), found, found.flip(0)


def test_removing_the_three_inputs_is_the_ranker_there_was_before():
    existing, adaptor = torch.randn(5, 4), LearnAdaptor(DIM)
    ranker = Ranker(adaptor.width)
    baseline = ranker(existing, None)

    assert torch.equal(ranker(existing, adaptor(*inputs()).features), baseline)
    nn.init.normal_(ranker.wider.beside.weight)
    assert not torch.equal(ranker(existing, adaptor(*inputs()).features), baseline)
    assert torch.equal(ranker(existing, torch.zeros(5, adaptor.width)), baseline)
    assert torch.equal(ranker.wider(existing, None), ranker.first(existing))


def test_the_ranker_learns_from_the_three_inputs():
    adaptor = LearnAdaptor(DIM)
    ranker = Ranker(adaptor.width)

    loss: Tensor = ranker(torch.randn(5, 4), adaptor(*inputs()).features).sum()
    torch.autograd.backward(loss)

    learned = ranker.wider.beside.weight.grad
    assert learned is not None
    assert learned.any()


def test_what_was_not_found_is_zeros_with_a_mask():
    users, items, users_found, items_found = inputs()
    adaptor = LearnAdaptor(DIM)

    adapted = adaptor(users, items, users_found, items_found)
    users[-1], items[0] = torch.nan, torch.inf

    assert torch.equal(adaptor(users, items, users_found, items_found).features, adapted.features)
    fused, tail = adapted.features.split([adaptor.width - 2 * DIM - 2, 2 * DIM + 2], dim=1)
    assert fused.any(dim=1).tolist() == [False, True, True, True, False]
    assert not tail[-1, :DIM].any()
    assert not tail[0, DIM : 2 * DIM].any()
    assert tail[:, -2:].tolist() == [[1, 0], [1, 1], [1, 1], [1, 1], [0, 1]]


@pytest.mark.parametrize("detach", [False, True])
def test_the_fusion_learns_from_conversions_and_from_the_ranker_if_it_may(detach: bool):
    adaptor = LearnAdaptor(DIM, detach=detach)
    (fused, *_) = adaptor.fusion.parameters()
    fusion_width = adaptor.width - 2 * DIM - 2

    assert adaptor(*inputs()).features[:, :fusion_width].requires_grad is not detach
    loss = conversion_loss(adaptor(*inputs()), torch.tensor([1, 0, 1, 0, 1]))
    torch.autograd.backward(loss)

    assert fused.grad is not None
    assert fused.grad.any()


def test_one_user_goes_with_many_items():
    features = LiveFeatures.of(vectors(1), vectors(3, missing=(1,)))

    assert features.users.shape == features.items.shape == (3, DIM)
    assert features.users_found.tolist() == [True] * 3
    masked = features.masked()
    assert not masked.items[1].any()
    assert masked.items[0].any()


def test_vectors_of_two_spaces_do_not_meet():
    with pytest.raises(ValueError, match="users of space a, items of b"):
        LiveFeatures.of(vectors(1, space="a"), vectors(3, space="b"))


def test_a_reki_space_gives_the_users_blocks_and_the_items_block():
    users, items = vectors(2, missing=(1,)), vectors(2)

    told = LiveFeatures.of(users, items).reki()

    np.testing.assert_array_equal(told[:, :4], users.values[:, :4].astype(np.float32))
    np.testing.assert_array_equal(told[:, 4:], items.values[:, 4:].astype(np.float32))


def test_the_log_says_which_vectors_were_served():
    served = vectors(2, missing=(1,))

    lines = training_log(["item:1", "item:2"], served)

    assert [json.loads(json.dumps(line))["rev"] for line in lines] == [0, -1]
    assert lines[1]["found"] is False
    assert lines[0]["values"] == served.values[0].astype(np.float32).tolist()
    with pytest.raises(ValueError, match="1 keys for 2 vectors"):
        training_log(["item:1"], served)
