"""How a LEARN network is trained: every choice, with its default and the reason for it. Pure."""

from dataclasses import asdict, dataclass
from typing import Literal

from workers.training.learn_batches import BatchSizes

DENSE_SIZES = BatchSizes()
"""Those of the paper."""

FULL_SIZES = BatchSizes(users=1024, history=200)
"""Of episodes: the items of a step cost more than its users."""

LARGE_OTHERS_RATE = 0.25
"""For networks whose interactions are many enough to learn all weights from."""


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """Sizes and the course of the training.

    Attributes:
        width, layers, heads, ffn, dim, history, centres: see LearnShape; the content adaptor is
            learned on `width` components.
        directions: components that are taught by who took to what; the rest are principal ones.
        sharpness: of the radial units.
        loss: "full" softmax over the new items of an episode, which are taken from all of a
            (small) catalogue, or the "dense" loss within the batch.
        sizes: of a batch.
        epochs: at most so many passes over the users.
        patience: so many epochs may bring no better figure on what was held out; one more ends it.
        learning_rate, weight_decay, warmup_epochs: AdamW's, on a cosine to a tenth.
        gain_rate: share of the learning rate that the norms' gains and the temperature get; the
            keys, that is what an item weighs in a history, have all of it.
        others_rate: share that all other weights get: with the items of a small catalogue they
            start well, and soon know the trained ones by heart.
        temperature: what cosines are divided by at first; learned.
        dropout: inside the layers.
        part_dropout: chance of each part of an item to be left out of a step.
        knowledge_dropout: chance of an item to be without all its knowledge in a step. Both are 0
            since the start knows of missing parts, and keys would learn to tell such items.
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
    epochs: int = 6
    patience: int = 3
    learning_rate: float = 1.2e-3
    gain_rate: float = 2.5
    others_rate: float = 0.0
    weight_decay: float = 0.0
    warmup_epochs: float = 1.0
    temperature: float = 0.1
    dropout: float = 0.1
    part_dropout: float = 0.0
    knowledge_dropout: float = 0.0
    average: float = 0.95
    seed: int = 1

    def declared(self) -> dict[str, object]:
        """Return all of them, as JSON has them."""
        return asdict(self)
