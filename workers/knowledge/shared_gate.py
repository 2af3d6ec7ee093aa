"""The quality gate for short answers about several items: each item's phrases are judged alone.

A refused item costs its neighbours nothing. Beside what any answer is held against, phrases must
stay with their own number: what names a neighbour, or says of two items the very same, is nobody's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from schemas.fingerprints import Json
from schemas.reasons import Rejection
from workers.knowledge.prompts import Domain, spelled
from workers.knowledge.quality import QualityGate
from workers.knowledge.quality_case import spaced, words_of
from workers.knowledge.shared_prompt import shared_domain, shared_factors
from workers.knowledge.writer import Answer, Rejected

Phrases: TypeAlias = Mapping[str, str]

_LEAST_WORDS_OF_A_NAME = 2
"""A title of one word is a word of the language, too."""


class SharedGate:
    """The gate of one domain's short answers; remembers a bounded number of them."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._gate = QualityGate(shared_domain(domain), brief=True)

    def judge(
        self, answer: Answer, members: Sequence[Mapping[str, Json]]
    ) -> list[Phrases | Rejected]:
        """Return what each item's phrases are, by factor, or why they are refused; in order.

        `members` are the fields of the items, as the prompt was made of them.
        """
        every = [shared_factors(self._domain, answer.factors, row) for row in range(len(members))]
        said = Counter(_said(phrases) for phrases in every if phrases)
        titles = [words_of(str(fields.get("title", ""))) for fields in members]
        return [
            self._judged(phrases, fields, titles, is_said_twice=said[_said(phrases)] > 1)
            for phrases, fields in zip(every, members, strict=True)
        ]

    def _judged(
        self,
        phrases: Phrases,
        fields: Mapping[str, Json],
        titles: Sequence[tuple[str, ...]],
        *,
        is_said_twice: bool,
    ) -> Phrases | Rejected:
        raw = spelled(phrases)
        if not phrases:
            return Rejected(Rejection.NO_ANSWER, "no phrase under its number")
        if is_said_twice:
            return Rejected(Rejection.GENERIC, "the same was said of another", raw)
        if _names_another(phrases, fields, titles):
            return Rejected(Rejection.WRONG_ENTITY, "names another one that was asked about", raw)
        refused = self._gate.judge(Answer(phrases, 0, 0, raw), fields)
        return phrases if refused is None else refused


def _said(phrases: Phrases) -> tuple[tuple[str, ...], ...]:
    return tuple(words_of(text) for text in phrases.values())


def _names_another(
    phrases: Phrases, fields: Mapping[str, Json], titles: Sequence[tuple[str, ...]]
) -> bool:
    own = spaced(word for value in fields.values() for word in words_of(str(value)))
    text = spaced(word for phrase in phrases.values() for word in words_of(phrase))
    return any(
        len(title) >= _LEAST_WORDS_OF_A_NAME and spaced(title) in text and spaced(title) not in own
        for title in titles
    )
