"""Small LEARN networks, the same in torch and in numpy, and spaces made of them."""

from typing import Any

import numpy as np
import torch

from schemas.entities import EntityKind
from schemas.spaces import Space
from tests.fakes.encoding import DIM, ENCODER_ID, PARTS
from tests.space_builders import RAW
from workers.adaptors.learn import ADAPTOR_ID, LearnAdaptor
from workers.adaptors.learn_shape import LearnShape
from workers.adaptors.trained_space import RAW_SPACE
from workers.training.learn_model import LearnModel

INPUTS = len(PARTS) * DIM


def small_shape(**changes: int) -> LearnShape:
    sizes = {"width": 16, "layers": 2, "heads": 4, "ffn": 24, "dim": 6, "history": 8, **changes}
    return LearnShape(**sizes)


def small_model(seed: int = 3, **changes: int) -> LearnModel:
    """A network of random weights, its biases too, in evaluation mode."""
    torch.manual_seed(seed)
    model = LearnModel(small_shape(**changes), INPUTS, dropout=0.1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return model.eval()


def learn_adaptor(
    model: LearnModel, name: str = "learn-1", *, raw: str = RAW, encoder_id: str = ENCODER_ID
) -> LearnAdaptor:
    """The space of a network, over the parts of tests.fakes.encoding."""
    random = np.random.default_rng(5)
    tensors: dict[str, Any] = {
        key: value.detach().numpy().copy() for key, value in model.state_dict().items()
    }
    tensors["mean"] = random.standard_normal((len(PARTS), DIM)).astype(np.float32) * 0.1
    tensors["confidence"] = np.ones(len(tensors["mean"]), np.float32)
    tensors["default"] = random.standard_normal(model.shape.dim).astype(np.float32) * 0.1
    space = Space(
        name=name,
        kinds=(EntityKind.ITEM, EntityKind.USER),
        encoder_id=encoder_id,
        adaptor_id=ADAPTOR_ID,
        parts=PARTS,
        part_dim=DIM,
        dim=model.shape.dim,
        fitted_on={RAW_SPACE: raw, **model.shape.declared()},
    )
    return LearnAdaptor.from_tensors(space, tensors)
