"""The writer that answers from a file of recorded answers: demo, tests, replays. No network.

File: JSON lines `{"item_id": "...", "knowledge": {factor: text}}`, read whole at construction.

The recordings are of items. About a user or a group it reasons nothing: its answer is put together
from what is recorded about the titles that a user liked most, or about the most typical members of
a group, clause by clause; what a user disliked is left out. Asked about several items at once, it
gives the beginnings of what is recorded about each.
It stands in for a language model where there is none, so that the whole path can run; what a real
one concludes from the same titles is another text.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from schemas.fingerprints import Json
from schemas.knowledge import KnowledgeRequest
from schemas.reasons import Rejection
from workers.knowledge.group_prompt import MEMBERS
from workers.knowledge.prompts import Prompt
from workers.knowledge.shared_prompt import ITEMS, phrase_within, shared_key
from workers.knowledge.titles import ITEM, entries
from workers.knowledge.user_prompt import LIKED
from workers.knowledge.writer import Answer, Rejected

_SETTING = "FRESHET_KNOWLEDGE__RECORDED_FILE"

_LISTED = {EntityKind.USER: LIKED, EntityKind.GROUP: MEMBERS}
_TITLES_TOLD = 3
_CLAUSE_ENDS = re.compile(r"[;,]\s+|(?<=[a-z])\.\s+")
_BOUND_UNLESS_ASKED = 400


class RecordedWriter:
    """A Writer whose answers depend on ids alone: the item's, or those that a request lists.

    Ids that nothing is recorded for get no answer.
    """

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
        recorded: Mapping[str, str]
        if request.entity.kind is EntityKind.ITEM:
            recorded = self._answers.get(request.entity.id, {})
        elif ITEMS in request.fields:
            recorded = self._shortened(prompt, request.fields[ITEMS])
        else:
            recorded = self._composed(prompt, request.fields.get(_LISTED[request.entity.kind]))
        factors = {name: recorded[name] for name in prompt.factor_names if name in recorded}
        if not factors:
            raise Rejected(Rejection.NO_ANSWER, "nothing recorded for it")
        return Answer(factors, 0, 0, orjson.dumps(factors).decode())

    async def aclose(self) -> None:
        """Hold nothing open."""

    def _shortened(self, prompt: Prompt, items: Json) -> dict[str, str]:
        """Return the beginnings of what is recorded about each of several items, by key."""
        listed = items if isinstance(items, Sequence) else ()
        return {
            key: phrase_within(text, _bound(prompt, key))
            for row, entry in enumerate(listed)
            if isinstance(entry, Mapping)
            for name, text in self._answers.get(str(entry.get(ITEM)), {}).items()
            if (key := shared_key(name, row)) in prompt.factor_names
        }

    def _composed(self, prompt: Prompt, listed: Json) -> dict[str, str]:
        """Return a text a factor, made from the recordings of the first listed titles."""
        known = [
            recorded
            for entry in entries(listed)
            if (recorded := self._answers.get(str(entry.get(ITEM))))
        ]
        told = {
            name: [recorded[name] for recorded in known if name in recorded][:_TITLES_TOLD]
            for name in prompt.factor_names
        }
        return {
            name: _compose(texts, _bound(prompt, name)) for name, texts in told.items() if texts
        }


def _compose(texts: Sequence[str], bound: int) -> str:
    """Return the texts' clauses in turn, first clauses first, in fewer than `bound` characters.

    A clause that says little new, or in the same words for a third time, is left out: films of one
    series share half of what is said about them.
    """
    said: set[str] = set()
    phrases: Counter[tuple[str, ...]] = Counter()
    clauses: list[str] = []
    for clause in _in_turn([_CLAUSE_ENDS.split(text) for text in texts]):
        words = re.findall(r"\w+", clause.lower())
        threes = [tuple(words[place : place + 3]) for place in range(len(words) - 2)]
        is_new = 2 * len(set(words) - said) > len(set(words))
        is_loop = any(phrases[three] > 1 for three in threes)
        length = sum(len(one) + 2 for one in clauses) + len(clause)
        if not clauses or (is_new and not is_loop and length < bound):
            clauses.append(clause)
            said.update(words)
            phrases.update(threes)
    return "; ".join(clauses)[: bound - 1].rstrip()


def _in_turn(clauses: Sequence[Sequence[str]]) -> Iterator[str]:
    for place in range(max(map(len, clauses), default=0)):
        for of_one in clauses:
            if place < len(of_one):
                yield of_one[place].strip(" .")


def _bound(prompt: Prompt, factor: str) -> int:
    properties = prompt.schema["properties"]
    asked = properties.get(factor) if isinstance(properties, Mapping) else None
    longest = asked.get("maxLength") if isinstance(asked, Mapping) else None
    return longest if isinstance(longest, int) else _BOUND_UNLESS_ASKED


def _recorded(line: bytes, number: int) -> tuple[str, Mapping[str, str]]:
    try:
        row = orjson.loads(line)
        factors = {str(name): str(text) for name, text in row["knowledge"].items()}
        return str(row["item_id"]), factors
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(_SETTING, f"line {number} is not a recorded answer") from error
