"""What a `reki` space is trained on, as arrays: samples in time, items' inputs, labels. Pure numpy.

Nothing here knows the future: the components are fitted on items that the training part met, ids
and attributes are those it met, and a sample's user is what they did strictly before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from schemas.fingerprints import Json
from workers.adaptors.hein_forward import reduced
from workers.adaptors.parts_pca import fit_parts_pca
from workers.towers.two_tastes import TasteRule, TwoTastes, two_tastes
from workers.training.item_attributes import ItemAttributes, item_attributes
from workers.training.reki_options import RekiOptions
from workers.training.timed_samples import TimedSamples, TimeSplit, split_by_time

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LEVELS = 11
"""What an interaction may be worth to the ranker: tenths of the way from the least value."""


class Items(NamedTuple):
    """The catalogue: raw `parts` (n, P, d) and `mask` (n, P), `fields` of each item.

    `knowledge_parts` (P,) tells which parts are knowledge; the others are the item's own content.
    """

    parts: Array
    mask: Mask
    fields: Sequence[Mapping[str, Json]]
    part_names: tuple[str, ...]
    knowledge_parts: Mask


class Inputs(NamedTuple):
    """What the towers are told of n samples: (n, width) each, (n,) whether there is anything."""

    tastes: TwoTastes
    items: Array
    has_item: Mask


@dataclass(frozen=True, slots=True)
class RekiData:
    """Samples and what may be said of them.

    Attributes:
        samples, split: who did what when, and what is trained on.
        labels: (samples,) 1 where it was liked.
        levels: (samples,) 1 to LEVELS, the value as the ranker embeds it.
        weights: (samples,) significance of each event, as user towers take it.
        attributes: items without any text.
        inputs: (2 * n, width) of items, first with all they have, then without their knowledge.
        has: (2 * n,) whether there is anything.
        mean, projection: from parts to inputs.
        rule: what a like is to the user towers.
    """

    samples: TimedSamples
    split: TimeSplit
    labels: Array
    levels: Ints
    weights: Array
    attributes: ItemAttributes
    inputs: Array
    has: Mask
    mean: Array
    projection: Array
    rule: TasteRule

    @classmethod
    def of(
        cls,
        items: Items,
        samples: TimedSamples,
        weight_of: Callable[[float], float],
        half_life_ms: int,
        options: RekiOptions,
    ) -> Self:
        """Return the arrays of samples with values; `weight_of` says what a value is worth.

        Raises ConfigurationError on values that are missing, or that say nothing.
        """
        values = samples.values
        if not np.isfinite(values).all():
            raise ConfigurationError("--data", "interactions without a rating say nothing to REKI")
        try:
            split = split_by_time(samples, options.valid_share, options.test_share)
        except ValueError as error:
            raise ConfigurationError("--data", str(error)) from error
        labels = (values >= options.liked_from).astype(np.float32)
        if len(np.unique(labels[split.train])) < 2:
            raise ConfigurationError(
                "--liked-from", f"{options.liked_from:g} tells no samples from the others"
            )
        distinct, place = np.unique(values, return_inverse=True)
        weights = np.array([weight_of(float(value)) for value in distinct], np.float32)[place]
        liked = round(1_000 * weight_of(options.liked_from))
        seen = np.bincount(samples.items[split.train], minlength=len(items.parts))
        inputs, has, mean, projection = _inputs(items, np.flatnonzero(seen), options)
        least, most = values[split.train].min(), values[split.train].max()
        share = np.clip((values - least) / (most - least), 0, 1)
        return cls(
            samples=samples,
            split=split,
            labels=labels,
            levels=1 + np.round(share * (LEVELS - 1)).astype(np.int64),
            weights=weights,
            attributes=item_attributes(items.fields, options.attributes, seen, options.least_seen),
            inputs=inputs,
            has=has,
            mean=mean,
            projection=projection,
            rule=TasteRule(half_life_ms, max(1, min(1_000, liked))),
        )

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.inputs) // 2

    def told(self, rows: Ints, longest: int, without: Mask, without_before: float = 0.0) -> Inputs:
        """Return what the towers are told of samples.

        Args:
            rows: (n,) of the samples.
            longest: how much of a history counts.
            without: (n,) samples whose item is to be without its knowledge.
            without_before: share of the items of histories that are; drawn by their rows, so that
                the same call says the same.
        """
        history = self.samples.history(rows, longest)
        before = np.maximum(history, 0)
        items = self.samples.items[before]
        if without_before:
            drawn = np.random.default_rng(int(rows.sum())).random(self.items) < without_before
            items = items + self.items * drawn[items]
        tastes = two_tastes(
            self.inputs,
            np.where((history >= 0) & self.has[items], items, np.int64(-1)),
            self.weights[before],
            self.samples.at_ms[before],
            self.rule,
        )
        own = self.samples.items[rows] + self.items * without
        return Inputs(tastes, self.inputs[own], self.has[own])


def _inputs(items: Items, met: Ints, options: RekiOptions) -> tuple[Array, Mask, Array, Array]:
    """Return the inputs, whether there are any, and the map to them, fitted on the rows `met`."""
    parts, mask = items.parts, items.mask
    random = np.random.default_rng([options.seed, len(parts)])
    if options.knowledge == "shuffled":
        order = random.permutation(len(parts))
        parts, mask = parts[order], mask[order]
    bare = mask & ~items.knowledge_parts
    if options.knowledge == "content":
        mask = bare
    width = min(options.components, mask.shape[1] * parts.shape[2])
    pca = fit_parts_pca(
        parts[met],
        mask[met],
        name="components",
        encoder_id="",
        part_names=items.part_names,
        dim=width,
    )
    masks: Mask = np.concatenate([mask, bare])
    has: Mask = np.any(masks, axis=1)
    inputs = reduced(np.concatenate([parts, parts]), masks, pca.mean, pca.projection)
    if options.knowledge == "random":
        drawn = random.standard_normal((len(parts), width)).astype(np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        inputs = np.concatenate([drawn, drawn]) * has[:, None]
    return inputs.astype(np.float32), has, pca.mean, pca.projection
