"""DIN (arXiv 1706.06978), the ranker that REKI is trained with, in torch.

An item is its id and its attributes; a user is what they did before, weighed by how much each of it
matters for the candidate. `features` are what a ranker gets from elsewhere, such as the vectors of
a space: they join the rest before the last layers. With `features=0` it is the plain ranker.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

UNKNOWN = 0
"""The id of items, and the value of attributes, that training met too seldom."""


@dataclass(frozen=True, slots=True)
class DinShape:
    """Sizes: of the vocabularies (with UNKNOWN), of an embedding, of the layers.

    `levels` counts what an interaction may be worth, `id_dropout` is the share of item ids
    that training takes for unknown, so that a new item is nothing out of the ordinary.
    """

    ids: int
    attributes: tuple[int, ...]
    levels: int
    features: int = 0
    embedding: int = 16
    attention: tuple[int, int] = (64, 32)
    layers: tuple[int, int] = (128, 64)
    dropout: float = 0.2
    id_dropout: float = 0.1


class DinBatch(NamedTuple):
    """n candidates, each with a history of up to L interactions, as int64 rows of the catalogue.

    `levels` (n, L) say what each interaction was worth, 0 where the history has ended.
    """

    items: Tensor
    history: Tensor
    levels: Tensor


class Din(nn.Module):
    """Logits of liking, for candidates with their users' histories.

    Args:
        shape: sizes.
        ids: (N,) int64, the id of each item of the catalogue, UNKNOWN for those seen too seldom.
        attributes: (N, A, M) int64, up to M values of each of A attributes, padded with UNKNOWN.
    """

    ids: Tensor
    attributes: Tensor

    def __init__(self, shape: DinShape, ids: Tensor, attributes: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("ids", ids)
        self.register_buffer("attributes", attributes)
        width = shape.embedding
        self.of_ids = nn.Embedding(shape.ids, width)
        self.of_attributes = nn.ModuleList(
            nn.EmbeddingBag(size, width, mode="mean", padding_idx=UNKNOWN)
            for size in shape.attributes
        )
        # 0 is the end of a history: it never counts.
        self.of_levels = nn.Embedding(shape.levels + 1, width, padding_idx=0)
        described = width * (1 + len(shape.attributes))
        self.attention = _perceptron(4 * described + width, shape.attention, 0.0)
        # The candidate, the interest, its amount, and what comes from elsewhere.
        joined = described + (described + width) + 1 + shape.features
        self.scorer = _perceptron(joined, shape.layers, shape.dropout)
        for table in (self.of_ids, *self.of_attributes, self.of_levels):
            nn.init.normal_(table.weight, std=0.05)
            with torch.no_grad():
                if table.padding_idx is not None:
                    table.weight[table.padding_idx].zero_()

    def forward(self, batch: DinBatch, features: Tensor | None = None) -> Tensor:
        """Return (n,) logits; `features` (n, shape.features), if it takes any.

        Raises ValueError on features that it was not made for.
        """
        if (0 if features is None else features.shape[1]) != self.shape.features:
            raise ValueError(f"made for {self.shape.features} features")
        present = batch.levels > 0
        items = torch.cat([batch.items, batch.history[present]])
        candidate, done = self._described(items).tensor_split([len(batch.items)])
        interest = self._interest(candidate, done, batch.levels, present)
        # How much there is to go by: a mean does not say it.
        amount = torch.log1p(present.sum(dim=1, keepdim=True).to(candidate.dtype))
        joined = [candidate, interest, amount, *([] if features is None else [features])]
        return torch.as_tensor(self.scorer(torch.cat(joined, dim=1))[:, 0])

    def _described(self, items: Tensor) -> Tensor:
        """Return (m, width * (1 + A)) for (m,) rows: id and attributes, each item's once."""
        distinct, places = torch.unique(items, return_inverse=True)
        said = [
            table(self.attributes[distinct, place])
            for place, table in enumerate(self.of_attributes)
        ]
        ids = self.ids[items]
        if self.training and self.shape.id_dropout:
            dropped = torch.rand(ids.shape, device=ids.device) < self.shape.id_dropout
            ids = ids.masked_fill(dropped, UNKNOWN)
        return torch.cat([self.of_ids(ids), torch.cat(said, dim=1)[places]], dim=1)

    def _interest(self, candidate: Tensor, done: Tensor, levels: Tensor, present: Tensor) -> Tensor:
        """Return (n, described + width): the history, weighed by the activation unit.

        Only what is there goes through it, `done` (m, described): most histories are far shorter
        than the longest of a batch.
        """
        of = present.nonzero()[:, 0]
        worth = self.of_levels(levels[present])
        asked = candidate[of]
        seen = torch.cat([asked, done, asked - done, asked * done, worth], dim=1)
        scores = self.attention(seen)[:, 0]
        weights = scores.new_full(present.shape, float("-inf")).masked_scatter(present, scores)
        # A user without a history has nothing to weigh: softmax of nothing is not a number.
        weights = torch.softmax(weights, dim=1).nan_to_num(0.0)[present]
        weighed = weights[:, None] * torch.cat([done, worth], dim=1)
        return weighed.new_zeros(len(candidate), weighed.shape[1]).index_add(0, of, weighed)


def _perceptron(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Return layers down to one value."""
    layers: list[nn.Module] = []
    for before, after in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), nn.PReLU(), nn.Dropout(dropout)]
    layers.append(nn.Linear(hidden[-1], 1))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
