"""Answers about other people's work: whom they name beside whom the fields name. Pure."""

import re

from schemas.entities import EntityKind
from schemas.reasons import Rejection
from workers.knowledge.quality_case import Case, Fault, stems_of

_PEOPLE = "people"
_NAME = re.compile(
    r"\b[A-ZÀ-Þ][\w'’.-]+(?: (?:de|van|von|del|la|le|el|al|[A-ZÀ-Þ]\.?))* [A-ZÀ-Þ][\w'’-]+"
)
_LEAST_LETTERS = 3
_MOST_NAMES = 2
"""Fields list a few of many. Who can name more others than that knows the whole list."""


def find_other_people(case: Case) -> Fault | None:
    """Return an answer about an item that names people, and none of whom the fields name.

    For answers with no other fault: a name that is mangled is another one too.
    """
    if case.kind is not EntityKind.ITEM or not case.people or _PEOPLE not in case.factors:
        return None
    names = _NAME.findall(case.factors[_PEOPLE])
    words = case.words[_PEOPLE]
    own = stems_of(words) & stems_of(case.people) or {
        word for word in words if word in case.people and len(word) >= _LEAST_LETTERS
    }
    if 0 < len(names) <= _MOST_NAMES and not own:
        return Rejection.WRONG_ENTITY, f"{_PEOPLE}: {len(names)} others, none of its own"
    return None
