"""The LEARN network in torch, for training (arXiv 2405.03988); it serves in numpy.

Content adaptor, post-norm transformer layers without positions, online projection, length 1. User
tower and item tower are the same weights: a user is the output at the end of a sequence of items,
an item the output on itself alone. `workers.adaptors.learn_forward` computes the same in numpy.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.adaptors.learn_forward import NORM_EPSILON
from workers.adaptors.learn_shape import LearnShape

_HIDDEN_SCORE = -1e4
_DENSE_ITEMS = 16


class _Projected(NamedTuple):
    """What a layer makes of its input; each is (..., width)."""

    query: Tensor
    key: Tensor
    value: Tensor


class EncoderLayer(nn.Module):
    """A post-norm transformer layer that may be asked at some positions only."""

    def __init__(self, shape: LearnShape, dropout: float) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, shape.ffn), nn.Linear(shape.ffn, width)
        self.attention_norm = nn.LayerNorm(width, NORM_EPSILON)
        self.ffn_norm = nn.LayerNorm(width, NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def projected(self, states: Tensor) -> _Projected:
        """Return queries, keys and values of the states, whatever they stand in."""
        return _Projected(self.query(states), self.key(states), self.value(states))

    def forward(self, asked: Tensor, projected: _Projected, visible: Tensor) -> Tensor:
        """Return (B, Q, width): the outputs where the input is `asked` and queries were made of it.

        Keys and values are (B, L, width); `visible` (B, Q, L) or (Q, L) says what each query sees.
        """
        attended = functional.scaled_dot_product_attention(
            self._split(projected.query),
            self._split(projected.key),
            self._split(projected.value),
            attn_mask=torch.where(visible, 0.0, _HIDDEN_SCORE).to(asked.dtype).unsqueeze(-3),
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self._after_attention(asked, attended.transpose(1, 2).flatten(2))

    def alone(self, states: Tensor) -> Tensor:
        """Return (n, width) of items (n, width), each seeing only itself."""
        return self._after_attention(states, self.value(states))

    def _after_attention(self, states: Tensor, attended: Tensor) -> Tensor:
        states = self.attention_norm(states + self.dropout(self.out(attended)))
        fed = self.down(functional.gelu(self.up(states), approximate="tanh"))
        normed: Tensor = self.ffn_norm(states + self.dropout(fed))
        return normed

    def _split(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


class LearnModel(nn.Module):
    """The network over rows of `inputs` values an item (workers.training.reduced_parts)."""

    def __init__(self, shape: LearnShape, inputs: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.content = nn.Linear(inputs, shape.width)
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.online = nn.Linear(shape.width, shape.dim)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Return (m, width): `inputs` (m, inputs) through the content adaptor."""
        adapted: Tensor = self.content(inputs)
        return adapted

    def alone(self, hidden: Tensor) -> Tensor:
        """Return (m, dim) unit rows: the item tower, each item as a sequence of its own."""
        for layer in self.encoder():
            hidden = layer.alone(hidden)
        return functional.normalize(self.online(hidden), dim=-1)

    def sequences(self, hidden: Tensor, rows: Tensor, at: Tensor | None = None) -> Tensor:
        """Return (B, Q, dim) unit rows at positions `at` (B, Q) of each sequence, or at all L.

        `rows` (B, L) points into `hidden` (m, width), oldest first, each item once a sequence;
        negative ones are padding, at the end. What the first layer projects is a matter of the item
        alone, so it is done once an item, not once a position.
        """
        length = rows.shape[1]
        if at is None:
            at = torch.arange(length, device=rows.device).expand(len(rows), -1)
        layers = self.encoder()
        projected = layers[0].projected(hidden)
        if len(layers) == 1 and len(hidden) <= _DENSE_ITEMS * length:
            states = _among_items(layers[0], hidden, projected, rows, at)
            return functional.normalize(self.online(states), dim=-1)
        rows = rows.clamp(min=0)  # padding is never seen: it stands behind every position asked
        causal = torch.ones(length, length, dtype=torch.bool, device=rows.device).tril()
        projected = _Projected(*(functional.embedding(rows, of) for of in projected))
        states = functional.embedding(rows, hidden)
        for layer, following in pairwise(layers):
            states = layer(states, projected, causal)
            projected = following.projected(states)
        asked = projected._replace(query=_take(projected.query, at))
        states = layers[-1](_take(states, at), asked, causal[at])
        return functional.normalize(self.online(states), dim=-1)

    def encoder(self) -> list[EncoderLayer]:
        """Return the encoder's layers."""
        return [layer for layer in self.layers if isinstance(layer, EncoderLayer)]


def _among_items(
    layer: EncoderLayer, hidden: Tensor, projected: _Projected, rows: Tensor, at: Tensor
) -> Tensor:
    """Return (B, Q, width), what a lone layer makes of sequences, by attention among all items.

    Without positions a sequence is the set of items before a position; masking the others out of
    all items costs less than gathering keys and values of every position, as long as the items are
    few.
    """
    (count, length), items = rows.shape, len(hidden)
    place = torch.full((count, items + 1), length, device=rows.device)
    order = torch.arange(length, device=rows.device).expand(count, -1)
    place.scatter_(1, torch.where(rows < 0, items, rows), order)
    visible = place[:, None, :items] <= at[..., None]
    last = rows.gather(1, at).clamp(min=0).flatten()
    asked = projected._replace(query=projected.query[last])
    states = layer(
        hidden[last][None],
        _Projected(*(of[None] for of in asked)),
        visible.view(1, -1, items),
    )
    asked_for: Tensor = states.view(*at.shape, -1)
    return asked_for


def _take(states: Tensor, at: Tensor) -> Tensor:
    """Return (B, Q, width): the states (B, L, width) at positions `at` (B, Q)."""
    return states.gather(1, at[..., None].expand(-1, -1, states.shape[-1]))
