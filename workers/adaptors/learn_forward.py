"""The LEARN network in numpy, as it serves: on single items and at the end of sequences of items.

A content adaptor, post-norm transformer layers with a causal mask and no positions, an online
projection, length 1 (arXiv 2405.03988, sections CEX and PAL). Nothing tells positions apart but the
mask, so what the first layer makes of an item is the same in every history: it is computed once an
item of the batch, and only the last position goes through the last layer. That is why a history is
computed anew at every event instead of keeping caches of keys and values (deploy/decisions.md, 39).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.adaptors.adaptor import Array, Mask, unit_rows
from workers.adaptors.learn_shape import CONTENT, LAYER, ONLINE, RADIAL, LearnShape
from workers.adaptors.radial_units import RadialUnits

Ints: TypeAlias = npt.NDArray[np.int64]

NORM_EPSILON = 1e-5
"""Of the layer norms, in training too."""

_TOKENS_AT_ONCE = 8_192
"""Positions of a chunk of histories, padding included: bounds memory, and fits the caches."""

_HIDDEN_SCORE = np.float32(-1e4)
_GELU_SCALE = np.float32(np.sqrt(2 / np.pi))
_GELU_CUBE = np.float32(0.044715)


class _Linear(NamedTuple):
    weight: Array
    bias: Array

    def __call__(self, rows: Array) -> Array:
        product: Array = rows @ self.weight.T + self.bias
        return product


class _Norm(NamedTuple):
    weight: Array
    bias: Array

    def __call__(self, rows: Array) -> Array:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        normed: Array = centred / np.sqrt(variance + np.float32(NORM_EPSILON))
        return normed * self.weight + self.bias


class _Radial(NamedTuple):
    units: RadialUnits
    weight: Array

    def __call__(self, centred: Array) -> Array:
        added: Array = self.units.of_items(centred) @ self.weight.T
        return added


@dataclass(frozen=True, slots=True)
class _Layer:
    heads: int
    query: _Linear
    key: _Linear
    value: _Linear
    out: _Linear
    attention_norm: _Norm
    up: _Linear
    down: _Linear
    ffn_norm: _Norm

    def after_attention(self, rows: Array, attended: Array) -> Array:
        """Return the layer's output for its input `rows` and the values attended to, alike."""
        rows = self.attention_norm(rows + self.out(attended))
        return self.ffn_norm(rows + self.down(_gelu(self.up(rows))))

    def split(self, rows: Array) -> Array:
        """Return (n, heads, L, width / heads) of (n, L, width)."""
        return rows.reshape(*rows.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def attend(self, queries: Array, keys: Array, values: Array, visible: Mask) -> Array:
        """Return (n, Q, width); `visible` (n, Q, L) says which of L positions each query sees."""
        scale = np.float32((keys.shape[-1] // self.heads) ** -0.5)
        scores = self.split(queries * scale) @ self.split(keys).transpose(0, 1, 3, 2)
        scores = np.where(visible[:, None], scores, _HIDDEN_SCORE)
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = weights @ self.split(values)
        joined: Array = mixed.transpose(0, 2, 1, 3).reshape(queries.shape)
        return joined


@dataclass(frozen=True, slots=True)
class LearnForward:
    """The network; rows of every method are independent of each other, up to rounding."""

    shape: LearnShape
    mean: Array
    content: _Linear
    radial: "_Radial | None"
    layers: tuple[_Layer, ...]
    online: _Linear

    @classmethod
    def of(cls, shape: LearnShape, tensors: Mapping[str, Array]) -> Self:
        """Return the network of these tensors (see LearnShape.tensor_shapes)."""
        return cls(
            shape,
            tensors["mean"],
            _linear(tensors, CONTENT),
            _Radial(RadialUnits(tensors["centres"], tensors["sharpness"]), tensors[RADIAL])
            if shape.centres
            else None,
            tuple(_layer(tensors, shape, number) for number in range(shape.layers)),
            _linear(tensors, ONLINE),
        )

    def hidden(self, parts: Array, mask: Mask) -> Array:
        """Return (m, width): items `parts` (m, P, d) through the content adaptor.

        A part missing in `mask` (m, P) counts as its mean over the catalogue.
        """
        centred = np.where(mask[:, :, None], parts - self.mean, np.float32(0))
        centred = centred.astype(np.float32, copy=False)
        hidden = self.content(centred.reshape(len(parts), self.mean.size))
        if self.radial is not None:
            hidden += self.radial(centred)
        return hidden

    def alone(self, hidden: Array) -> Array:
        """Return (m, dim) unit rows: each item as a sequence of its own."""
        for layer in self.layers:
            hidden = layer.after_attention(hidden, layer.value(hidden))
        return unit_rows(self.online(hidden))

    def newest(self, hidden: Array, rows: Ints) -> Array:
        """Return (n, dim) unit rows, the output at the last position of each sequence.

        `rows` (n, L) points into `hidden` (m, width), oldest first; negative ones are padding, at
        the end. An empty sequence gives zeros.
        """
        lengths = (rows >= 0).sum(axis=1)
        vectors = np.zeros((len(rows), self.shape.dim), np.float32)
        first = self.layers[0]
        projected = first.query(hidden), first.key(hidden), first.value(hidden)
        for users in _chunks(lengths):
            longest = int(lengths[users].max())
            vectors[users] = self._last(
                hidden, projected, rows[users, :longest], lengths[users] - 1
            )
        return vectors

    def _last(
        self, hidden: Array, projected: tuple[Array, Array, Array], rows: Ints, last: Ints
    ) -> Array:
        causal = np.tri(rows.shape[1], dtype=np.bool_)
        every = np.arange(len(rows))
        end = causal[last][:, None]
        states = hidden[rows]
        queries, keys, values = (of[rows] for of in projected)
        for layer, following in pairwise(self.layers):
            # Padding stands behind every position that counts, so the causal mask hides it too.
            visible = np.broadcast_to(causal, (len(rows), *causal.shape))
            states = layer.after_attention(states, layer.attend(queries, keys, values, visible))
            queries, keys, values = (
                following.query(states),
                following.key(states),
                following.value(states),
            )
        at_end = queries[every, last][:, None]
        attended = self.layers[-1].attend(at_end, keys, values, end)
        outputs = self.layers[-1].after_attention(states[every, last], attended[:, 0])
        return unit_rows(self.online(outputs))


def _chunks(lengths: Ints) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the users with a history, the longest first, few enough at a time."""
    order = np.argsort(-lengths, kind="stable")
    order = order[: int((lengths > 0).sum())]
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_AT_ONCE // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _gelu(rows: Array) -> Array:
    # The tanh form: numpy has no error function.
    cubed = rows + _GELU_CUBE * rows * rows * rows
    activated: Array = np.float32(0.5) * rows * (1 + np.tanh(_GELU_SCALE * cubed))
    return activated


def _linear(tensors: Mapping[str, Array], name: str) -> _Linear:
    return _Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Mapping[str, Array], name: str) -> _Norm:
    return _Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _layer(tensors: Mapping[str, Array], shape: LearnShape, number: int) -> _Layer:
    prefix = LAYER.format(number)
    return _Layer(
        shape.heads,
        query=_linear(tensors, prefix + "query"),
        key=_linear(tensors, prefix + "key"),
        value=_linear(tensors, prefix + "value"),
        out=_linear(tensors, prefix + "out"),
        attention_norm=_norm(tensors, prefix + "attention_norm"),
        up=_linear(tensors, prefix + "up"),
        down=_linear(tensors, prefix + "down"),
        ffn_norm=_norm(tensors, prefix + "ffn_norm"),
    )
