"""The LEARN network in numpy, as it serves: on single items and at the end of sequences of items.

A content adaptor, post-norm transformer layers with a causal mask and no positions, an online
projection, length 1 (arXiv 2405.03988, sections CEX and PAL). Nothing tells positions apart but the
mask, so what the first layer makes of an item is the same in every history: whoever serves may
remember it by item, and only the last position goes through the last layer. So a history is made
into a vector anew at every event; no keys and values are kept of users (deploy/decisions.md, 39).
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

    def entering(self, hidden: Array) -> Array:
        """Return (m, 3 * width): `hidden` (m, width), and its keys and values in the first layer.

        They are the same in every sequence, and all that the first layer needs of an item but for
        its query, which of the last item alone is cheaper to make than to remember.
        """
        first = self.layers[0]
        return np.concatenate([hidden, first.key(hidden), first.value(hidden)], axis=1)

    def newest(self, entering: Array, rows: Ints) -> Array:
        """Return (n, dim) unit rows, the output at the last position of each sequence.

        `rows` (n, L) points into `entering` (m, 3 * width), oldest first; negative ones are
        padding, at the end. An empty sequence gives zeros.
        """
        lengths = (rows >= 0).sum(axis=1)
        there = np.flatnonzero(lengths)
        at_end = np.zeros((len(there), self.shape.width), np.float32)
        attended = np.zeros_like(at_end)
        for users in _chunks(lengths[there]):
            longest = int(lengths[there[users]].max())
            at_end[users], attended[users] = self._at_end(
                entering, rows[there[users], :longest], lengths[there[users]] - 1
            )
        vectors = np.zeros((len(rows), self.shape.dim), np.float32)
        vectors[there] = unit_rows(self.online(self.layers[-1].after_attention(at_end, attended)))
        return vectors

    def _at_end(self, entering: Array, rows: Ints, last: Ints) -> tuple[Array, Array]:
        """Return what the last layer gets and attends to at the `last` position, (n, width) each.

        Nothing that follows looks at other positions.
        """
        causal = np.tri(rows.shape[1], dtype=np.bool_)
        every = np.arange(len(rows))
        states, keys, values = np.split(entering[rows], 3, axis=2)
        for layer, following in pairwise(self.layers):
            # Padding stands behind every position that counts, so the causal mask hides it too.
            visible = np.broadcast_to(causal, (len(rows), *causal.shape))
            attended = layer.attend(layer.query(states), keys, values, visible)
            states = layer.after_attention(states, attended)
            keys, values = following.key(states), following.value(states)
        layer, at_end = self.layers[-1], states[every, last]
        attended = layer.attend(layer.query(at_end)[:, None], keys, values, causal[last][:, None])
        return at_end, attended[:, 0]


def _chunks(lengths: Ints) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the sequences, longest first: few enough at a time, and of lengths that are alike."""
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    start = 0
    while start < len(order):
        longest = int(ordered[start])
        # The first that is less than half as long: more than half of its row would be padding.
        alike = int(np.searchsorted(-ordered, -(longest // 2 + 1), side="right"))
        end = min(alike, start + max(1, _TOKENS_AT_ONCE // longest))
        yield order[start:end]
        start = end


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
