"""How a demo is to run. Apart from the run itself, which takes a second to import."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Llm(StrEnum):
    """Who writes about films."""

    RECORDED = "recorded"
    VLLM = "vllm"


class LiveSpace(StrEnum):
    """The space whose vectors rankers read."""

    PARTS_PCA = "parts-pca"
    LEARN = "learn"


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `films` None for all of them, `speed` seconds of the summer a second."""

    root: Path
    seed: int
    speed: float
    films: int | None
    keep: bool
    llm: Llm
    space: LiveSpace
