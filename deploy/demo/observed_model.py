"""What a real language model does during a block, from its server's own figures."""

import time
from types import TracebackType
from typing import Self

from deploy.demo.language_model import LanguageModel
from deploy.demo.llm_counts import ModelFigures


class ObservedModel:
    """A model, as a context manager; `figures` are there after the block, None without a model."""

    def __init__(self, model: LanguageModel | None) -> None:
        self._model = model
        self.figures: ModelFigures | None = None

    def __enter__(self) -> Self:
        if self._model is not None:
            self._before, self._started = self._model.figures(), time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._model is None or error is not None:
            return
        passed = time.monotonic() - self._started
        found = self._model.figures().since(self._before)
        self.figures = ModelFigures(
            self._model.model, found.generated_tokens / passed, found.prefix_hit_rate
        )
