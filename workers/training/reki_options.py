"""How a `reki` space is trained: every choice, with its default. Pure."""

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

Knowledge: TypeAlias = Literal["own", "none", "content", "shuffled", "random"]
"""What the ranker is told about items: what was written about them, nothing at all, only their
content, what was written about others, or numbers without a meaning."""


@dataclass(frozen=True, slots=True)
class RekiOptions:
    """Sizes and the course of the training.

    Attributes:
        liked_from: a value from here on is a positive sample, and a like of the user towers.
        components: principal components of the parts, the width of the network's inputs.
        shared, dedicated: experts (REKI's defaults).
        adaptor: "hein", or "mlp": one hidden layer for all inputs together, to compare with.
        knowledge: what is told about items; anything but "own" is there to compare with.
        attributes: fields of the catalogue that the ranker embeds.
        least_seen: an item or a value that training met less often is unknown to the ranker.
        history: newest interactions that the ranker looks at.
        taste_history: newest interactions that the user towers look at, as histories keep them.
        embedding, attention, layers, dropout, id_dropout: see DinShape.
        knowledge_dropout: chance of a tower's input to be missing in a sample.
        content_only: chance of an item, in a sample or a history, to be without its knowledge.
        valid_share, test_share: last shares of the samples in time, to choose by and to judge by.
        epochs, patience: at most so many, and without a better figure on validation.
        batch, learning_rate, weight_decay: AdamW's; biases are not decayed.
        seed: of everything drawn.
    """

    liked_from: float = 8.0
    components: int = 128
    shared: int = 2
    dedicated: int = 5
    adaptor: Literal["hein", "mlp"] = "hein"
    knowledge: Knowledge = "own"
    attributes: tuple[str, ...] = ("genres", "year", "directors")
    least_seen: int = 5
    history: int = 20
    taste_history: int = 200
    embedding: int = 16
    attention: tuple[int, int] = (64, 32)
    layers: tuple[int, int] = (128, 64)
    dropout: float = 0.2
    id_dropout: float = 0.1
    knowledge_dropout: float = 0.1
    content_only: float = 0.1
    valid_share: float = 0.1
    test_share: float = 0.2
    epochs: int = 12
    patience: int = 2
    batch: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 1

    def declared(self) -> dict[str, object]:
        """Return all of them, as JSON has them."""
        return asdict(self)
