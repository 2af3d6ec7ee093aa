"""A space of each kind at its shipped size, with random weights: cost does not depend on values."""

from functools import cache

import numpy as np

from schemas.entities import EntityKind
from schemas.spaces import Space
from workers.adaptors import hein, learn
from workers.adaptors.adaptor import Adaptor
from workers.adaptors.hein import HeinAdaptor
from workers.adaptors.hein_shape import HeinShape
from workers.adaptors.learn import LearnAdaptor
from workers.adaptors.learn_shape import LearnShape
from workers.adaptors.parts_pca import fit_parts_pca
from workers.adaptors.raw import raw_adaptor
from workers.encoding.representation import DEFAULT_PARTS
from workers.towers.load_towers import trained_tower
from workers.towers.recency_mean import RecencyMean
from workers.towers.two_tastes import TasteRule
from workers.towers.user_tower import UserTower
from workers.training.learn_options import LearnOptions
from workers.training.reki_options import RekiOptions

PART_DIM = 384

_CONTENT_PARTS = 2
_FITTED_ITEMS = 400
_HALF_LIFE_MS = 60 * 86_400_000
_ENCODER_ID = "minilm-l6-v2-bench"


def parts_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (count, P, d) float32 unit parts and their mask.

    Every other item has all parts, the others only those that need no knowledge.
    """
    random = np.random.default_rng(count)
    parts = random.standard_normal((count, len(DEFAULT_PARTS), PART_DIM), np.float32)
    parts /= np.linalg.norm(parts, axis=2, keepdims=True)
    mask = np.ones(parts.shape[:2], np.bool_)
    mask[1::2, _CONTENT_PARTS:] = False
    return parts, mask


@cache
def adaptors() -> dict[str, Adaptor]:
    """Return the adaptors by the names of their kinds."""
    raw = raw_adaptor(_ENCODER_ID, DEFAULT_PARTS, PART_DIM)
    pca = fit_parts_pca(
        *parts_of(_FITTED_ITEMS),
        name="parts-pca",
        encoder_id=_ENCODER_ID,
        part_names=DEFAULT_PARTS,
    )
    return {"raw": raw, "parts_pca": pca, "learn": _learn(), "reki": _reki()}


def towers() -> dict[str, UserTower]:
    """Return the user towers by the names of their spaces' kinds."""
    made = adaptors()
    return {
        "parts_pca": RecencyMean(made["parts_pca"].space, _HALF_LIFE_MS),
        "learn": trained_tower(made["learn"]),
        "reki": trained_tower(made["reki"]),
    }


def _learn() -> LearnAdaptor:
    options = LearnOptions()
    shape = LearnShape(
        width=options.width,
        layers=options.layers,
        heads=options.heads,
        ffn=options.ffn,
        dim=options.dim,
        history=options.history,
    )
    space = _space("learn", learn.ADAPTOR_ID, shape.dim, shape.declared())
    return LearnAdaptor.from_tensors(
        space, _random(shape.tensor_shapes(len(DEFAULT_PARTS), PART_DIM))
    )


def _reki() -> HeinAdaptor:
    options = RekiOptions()
    shape = HeinShape(options.components, shared=options.shared, dedicated=options.dedicated)
    rule = TasteRule(_HALF_LIFE_MS, 500)
    space = _space("reki", hein.ADAPTOR_ID, shape.dim, {**shape.declared(), **rule.declared()})
    return HeinAdaptor.from_tensors(
        space, _random(shape.tensor_shapes(len(DEFAULT_PARTS), PART_DIM))
    )


def _space(name: str, adaptor_id: str, dim: int, declared: dict[str, str | int]) -> Space:
    return Space(
        name=name,
        kinds=(EntityKind.ITEM, EntityKind.USER),
        encoder_id=_ENCODER_ID,
        adaptor_id=adaptor_id,
        parts=DEFAULT_PARTS,
        part_dim=PART_DIM,
        dim=dim,
        fitted_on={"raw_space": "minilm-parts", **declared},
    )


def _random(shapes) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        name: random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
        for name, shape in shapes.items()
    }
