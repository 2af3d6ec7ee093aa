"""How a LEARN network is trained: every choice, with its default and the reason for it. Pure."""

from dataclasses import asdict, dataclass
from typing import Literal

from workers.training.learn_batches import BatchSizes

DENSE_SIZES = BatchSizes()
"""Those of the paper."""

FULL_SIZES = BatchSizes(users=1024, history=200, targets=200, positions=1)
"""Whole histories against all that follows: the items of a step cost more than its users."""


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """Sizes and the course of the training.

    Attributes:
        width, layers, heads, ffn, dim, history, centres: see LearnShape; the content adaptor is
            learned on `width` components.
        directions: components that are taught by who took to what; the rest are principal ones.
        sharpness: of the radial units.
        loss: "full" softmax over the catalogue (small ones), or the "dense" loss within the batch.
        sizes: of a batch.
        epochs: at most so many passes over the users.
        patience: epochs without a better figure on what was held out before it stops.
        learning_rate, weight_decay, warmup_epochs: AdamW's, on a cosine to a tenth.
        adaptor_rate: share of the learning rate that the content adaptor and the online projection
            get: they start well, and soon know the trained items by heart.
        temperature: what cosines are divided by at first; learned.
        dropout: inside the layers.
        part_dropout: chance of each part of an item to be left out of a step.
        knowledge_dropout: chance of an item to be without all its knowledge in a step, so that one
            about which nothing was written yet is nothing new to the network.
        average: share that a running average of the weights keeps at a step; what is served is it.
        seed: of everything drawn.
    """

    width: int = 576
    layers: int = 1
    heads: int = 8
    ffn: int = 512
    dim: int = 256
    history: int = 200
    centres: int = 1024
    directions: int = 64
    sharpness: float = 2.0
    loss: Literal["full", "dense"] = "full"
    sizes: BatchSizes = FULL_SIZES
    epochs: int = 20
    patience: int = 3
    learning_rate: float = 3e-4
    adaptor_rate: float = 0.02
    weight_decay: float = 0.0
    warmup_epochs: float = 1.0
    temperature: float = 0.15
    dropout: float = 0.1
    part_dropout: float = 0.1
    knowledge_dropout: float = 0.1
    average: float = 0.95
    seed: int = 1

    def declared(self) -> dict[str, object]:
        """Return all of them, as JSON has them."""
        return asdict(self)
