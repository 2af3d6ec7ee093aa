"""A `reki` space of random weights, small enough to compute with in a test."""

import numpy as np
import torch

from schemas.entities import EntityKind
from schemas.spaces import Space
from tests.fakes.encoding import DIM, ENCODER_ID, PARTS
from tests.history_builders import DAY_MS
from workers.adaptors.hein import ADAPTOR_ID, HeinAdaptor
from workers.adaptors.hein_shape import HeinShape
from workers.adaptors.trained_space import RAW_SPACE
from workers.towers.two_tastes import TasteRule
from workers.training.hein_model import KnowledgeTowers

SHAPE = HeinShape(width=7, shared=2, dedicated=3, hidden=16, out=4)
RULE = TasteRule(half_life_ms=30 * DAY_MS, liked_from_thousandths=500)
PART_COUNT = len(PARTS)


def knowledge_towers(shape: HeinShape = SHAPE, seed: int = 0, **options: float) -> KnowledgeTowers:
    torch.manual_seed(seed)
    return KnowledgeTowers(shape, **options)


def reki_declaration(name: str = "reki", **changes: object) -> Space:
    fields = {
        "name": name,
        "kinds": (EntityKind.ITEM, EntityKind.USER),
        "encoder_id": ENCODER_ID,
        "adaptor_id": ADAPTOR_ID,
        "parts": PARTS,
        "part_dim": DIM,
        "dim": SHAPE.dim,
        "metric": "dot",
        "fitted_on": {RAW_SPACE: "raw", **SHAPE.declared(), **RULE.declared()},
        **changes,
    }
    return Space.model_validate(fields)


def reki_tensors(towers: KnowledgeTowers | None = None) -> dict[str, np.ndarray]:
    towers = towers or knowledge_towers()
    random = np.random.default_rng(0)
    learned = {name: value.numpy() for name, value in towers.hein.state_dict().items()}
    return {
        "mean": random.standard_normal((PART_COUNT, DIM)).astype(np.float32) / 10,
        "projection": random.standard_normal((PART_COUNT * DIM, SHAPE.width)).astype(np.float32),
        "unknown": towers.unknown.detach().numpy(),
        **learned,
    }


def reki_adaptor(towers: KnowledgeTowers | None = None, name: str = "reki") -> HeinAdaptor:
    return HeinAdaptor.from_tensors(reki_declaration(name), reki_tensors(towers))


def catalogue(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Parts and mask of items; the first lacks its last part, the last one all of them."""
    random = np.random.default_rng(seed)
    mask = np.ones((count, PART_COUNT), np.bool_)
    mask[0, -1], mask[-1] = False, False
    parts = random.standard_normal((count, PART_COUNT, DIM)).astype(np.float32)
    return np.where(mask[:, :, None], parts, np.float32(0)), mask
