"""Answers about something else: another kind of thing, other people's work, another item. Pure.

What tells items of a catalogue apart is known from the items asked about of late; see
`recent_answers`.
"""

import re

from schemas.entities import EntityKind
from schemas.reasons import Rejection
from workers.knowledge.quality_case import Case, Fault, stems_of, words_of
from workers.knowledge.recent_answers import RecentAnswers

_MANY = {EntityKind.USER: "the taste", EntityKind.GROUP: "the group"}
_CALLED = r"""(?:.*?\b(?:titled|called|entitled|named) )?["'“‘«]([^"'”’»]{2,80})["'”’»]"""


def find_entity(case: Case) -> Fault | None:
    """Return an answer that says itself that it is about something else."""
    noun = case.domain.noun
    for name, text in case.factors.items():
        lowered = text.lower()
        for foreign in case.domain.foreign_nouns:
            if f"this {foreign} " in f"{lowered} ":
                return Rejection.WRONG_ENTITY, f"{name}: calls the {noun} a {foreign}"
        if case.is_about_many:
            if re.match(rf"(?:the|this) {noun} ", lowered):
                return (
                    Rejection.WRONG_ENTITY,
                    f"{name}: describes one {noun}, not {_MANY[case.kind]}",
                )
            continue
        if called := re.match(rf"(?:the|this|a) {noun},? {_CALLED}", lowered):
            other = " ".join(words_of(called.group(1)))
            if other not in case.title and case.title not in other:
                return Rejection.WRONG_ENTITY, f"{name}: calls the {noun} by another name"
    return None


_PEOPLE = "people"
_NAME = re.compile(
    r"\b[A-ZÀ-Þ][\w'’.-]+(?: (?:de|van|von|del|la|le|el|al|[A-ZÀ-Þ]\.?))* [A-ZÀ-Þ][\w'’-]+"
)
_CHARACTER = re.compile(r"^[A-ZÀ-Þ]\w+,? (?:an?|who|whose) ")
"""A single name, and who that is: somebody in a story. Who made something needs no telling."""

_LEAST_LETTERS = 3
_MOST_NAMES = 2
"""Fields list a few of many. Who can name more others than that knows the whole list."""

_LEAST_TOLD = 2
"""Words that only a description of the item has: so many show that the answer is about it."""


def find_other_people(case: Case, recent: RecentAnswers) -> Fault | None:
    """Return an answer about an item that names people, and none of whom the fields name.

    For answers with no other fault: a name that is mangled is another one too. A troupe that the
    title names is no other, and a plot that is told right outweighs a cast that the fields lack.
    """
    if case.kind is not EntityKind.ITEM or not case.people or _PEOPLE not in case.factors:
        return None
    text, words = case.factors[_PEOPLE], case.words[_PEOPLE]
    own = stems_of(words) & stems_of(case.people) or {
        word for word in words if word in case.people and len(word) >= _LEAST_LETTERS
    }
    if own or _tells_the_plot(case, recent):
        return None
    titled = case.title.split()
    names = [name for name in _NAME.findall(text) if not set(words_of(name)) <= set(titled)]
    if 0 < len(names) <= _MOST_NAMES or (not names and _CHARACTER.match(text)):
        return Rejection.WRONG_ENTITY, f"{_PEOPLE}: {len(names) or 1} others, none of its own"
    return None


def _tells_the_plot(case: Case, recent: RecentAnswers) -> bool:
    told = stems_of(case.prose) - stems_of(case.values)
    others = (word for name, words in case.words.items() if name != _PEOPLE for word in words)
    return sum(recent.is_rare(stem) for stem in told & stems_of(others)) >= _LEAST_TOLD


_COMMON_SPARES = 2
_LEAST_TELLING = 5
_FEW_SHARED = 1
_SHARED_WITH_ANOTHER = 4


def overlap(case: Case, recent: RecentAnswers) -> tuple[int, int]:
    """Return how many words an answer shares with its fields: rare ones, and common ones."""
    own = case.subject.stems & _answer_stems(case)
    rare = sum(recent.is_rare(stem) for stem in own)
    return rare, len(own) - rare


def find_stranger(case: Case, recent: RecentAnswers) -> Fault | None:
    """Return an answer that shares nothing with its fields, or much with those of another item.

    For answers with no other fault: one without words shares none.
    """
    if case.is_about_many:
        return None
    rare, common = overlap(case, recent)
    shared = recent.shared_with_another(case.subject, _answer_stems(case))
    if rare <= _FEW_SHARED and shared >= _SHARED_WITH_ANOTHER + 2 * rare + common // 2:
        return Rejection.WRONG_ENTITY, "fits another item better"
    told = sum(recent.is_rare(stem) for stem in case.subject.stems)
    is_strange = rare == 0 and common < _COMMON_SPARES and told >= _LEAST_TELLING
    if is_strange and recent.answers_usually_overlap():
        return Rejection.WRONG_ENTITY, "shares no word with the fields that tells items apart"
    return None


def _answer_stems(case: Case) -> frozenset[str]:
    return stems_of(word for words in case.words.values() for word in words)
