"""The writer that answers from a file of recorded answers: demo, tests, replays. No network.

File: JSON lines `{"item_id": "...", "knowledge": {factor: text}}`, read whole at construction.
"""

from collections.abc import Mapping
from pathlib import Path

import orjson

from schemas.errors import ConfigurationError
from schemas.knowledge import KnowledgeRequest
from schemas.reasons import Rejection
from workers.knowledge.prompts import Prompt
from workers.knowledge.writer import Answer, Rejected

_SETTING = "FRESHET_KNOWLEDGE__RECORDED_FILE"


class RecordedWriter:
    """A Writer whose answers depend on the entity's id alone; unknown ids get no answer."""

    def __init__(self, answers: Mapping[str, Mapping[str, str]], *, model: str) -> None:
        self._answers = answers
        self._model = model

    @classmethod
    def load(cls, path: Path, *, model: str) -> "RecordedWriter":
        """Return the writer of a file; raises ConfigurationError naming the line."""
        answers: dict[str, Mapping[str, str]] = {}
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        item_id, factors = _recorded(line, number)
                        answers[item_id] = factors
        except OSError as error:
            raise ConfigurationError(_SETTING, f"{path}: {error.strerror}") from error
        return cls(answers, model=model)

    @property
    def model(self) -> str:
        """The model that wrote the recording, as declared."""
        return self._model

    async def write(
        self,
        prompt: Prompt,
        request: KnowledgeRequest,
        *,
        priority: int,  # noqa: ARG002  # nothing queues for a file
    ) -> Answer:
        """Return the recorded texts of the asked factors; raises Rejected(no_answer)."""
        recorded = self._answers.get(request.entity.id)
        if recorded is None:
            raise Rejected(Rejection.NO_ANSWER, f"nothing recorded for {request.entity}")
        factors = {name: recorded[name] for name in prompt.factor_names if name in recorded}
        return Answer(factors, 0, 0, orjson.dumps(factors).decode())

    async def aclose(self) -> None:
        """Hold nothing open."""


def _recorded(line: bytes, number: int) -> tuple[str, Mapping[str, str]]:
    try:
        row = orjson.loads(line)
        factors = {str(name): str(text) for name, text in row["knowledge"].items()}
        return str(row["item_id"]), factors
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(_SETTING, f"line {number} is not a recorded answer") from error
