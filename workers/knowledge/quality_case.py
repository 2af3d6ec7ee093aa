"""What the checks of an answer look at: its words, and those of what it is about. Pure."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from schemas.entities import EntityKind
from schemas.fingerprints import Json
from schemas.reasons import Rejection
from workers.knowledge.group_prompt import group_rules, member_titles
from workers.knowledge.prompts import Domain, rules
from workers.knowledge.shared_prompt import shared_rules
from workers.knowledge.user_prompt import titles_in, user_rules

Fault = tuple[Rejection, str]
"""A code and what was found: factor names and counts, never the answer's own words."""

RULE_RUN = 7
"""So many words of the prompt in a row are no coincidence."""

PEOPLE_FIELDS = frozenset(
    "author authors director directors writer writers actor actors cast artist artists"
    " brand".split()
)

_STEM_LETTERS = 6
_LEAST_STEM_LETTERS = 4
_MOST_WORDS_OF_A_VALUE = 12

FUNCTION_WORDS = frozenset(
    "a about above after again all also although among an and another any are around as at away"
    " back be because been before being between both but by can can't could did do does doesn't"
    " don't down during each either else even ever every few first for from had has have he her"
    " here him his how i if in into is isn't it it's its just made make makes making may me might"
    " more most much must my never no nor not nothing of off on once one only or other our out over"
    " own per rather s same she should since so some still such t than that the their them then"
    " there these they this those through throughout to together too two under until up upon us"
    " very was way we were what when where whether which while who whom whose why will with within"
    " without would yet you your".split()
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an answer should be about: stems of all that the fields say, and what it is called.

    `names` are whole titles in lower-case words: one of an item, many of a user or a group.
    """

    names: frozenset[str]
    title_stems: frozenset[str]
    stems: frozenset[str]

    def is_akin_to(self, other: "Subject") -> bool:
        """Whether the two may be the same, or parts of a series: they share a title's word."""
        return bool(self.names & other.names or self.title_stems & other.title_stems)


@dataclass(frozen=True, slots=True)
class Case:
    """An answer beside its fields: lower-cased words; `prose` are those of text fields, not lists.

    `fields` are all their words, spaced, `known` the same as a set, `values` those of short ones,
    `people` those of who made it.
    `title` holds all titles when the answer is not about one item; `asks` are the questions, by
    factor, and `rules` the runs of words of the prompts around them.
    """

    factors: Mapping[str, str]
    words: Mapping[str, tuple[str, ...]]
    fields: str
    known: frozenset[str]
    values: frozenset[str]
    people: frozenset[str]
    prose: tuple[str, ...]
    title: str
    asks: Mapping[str, tuple[str, ...]]
    rules: frozenset[tuple[str, ...]]
    kind: EntityKind
    domain: Domain
    subject: Subject

    @property
    def is_about_many(self) -> bool:
        """Whether it was made from many titles: of what a user chose, or of a group's members."""
        return self.kind is not EntityKind.ITEM

    def tells(self, words: Sequence[str]) -> bool:
        """Whether the fields have these words in a row."""
        return bool(words) and spaced(words) in self.fields


def case_of(
    factors: Mapping[str, str], fields: Mapping[str, Json], domain: Domain, kind: EntityKind
) -> Case:
    """Return an answer's asked factors beside the fields they were asked about."""
    titles = _titles(fields, kind)
    values = [words_of(text) for text in _strings(fields)]
    told = tuple(word for words in values for word in words)
    named = [words_of(title) for title in titles]
    return Case(
        factors=factors,
        words={name: words_of(text) for name, text in factors.items()},
        fields=spaced(told),
        known=frozenset(told),
        values=frozenset(
            word for words in values if len(words) <= _MOST_WORDS_OF_A_VALUE for word in words
        ),
        people=frozenset(
            word
            for name, value in fields.items()
            if name in PEOPLE_FIELDS
            for text in _strings(value)
            for word in words_of(text)
        ),
        prose=words_of(" ".join(text for text in fields.values() if isinstance(text, str))),
        title=" ".join(" ".join(words) for words in named),
        asks={
            factor.name: words_of(factor.taste if kind is EntityKind.USER else factor.ask)
            for factor in domain.factors
        },
        rules=_runs_of_rules(domain),
        kind=kind,
        domain=domain,
        subject=Subject(
            names=frozenset(" ".join(words) for words in named),
            # Two users, or two groups, who share a word of a title share nothing.
            title_stems=stems_of(named[0]) if kind is EntityKind.ITEM else frozenset(),
            stems=stems_of(told),
        ),
    )


def _titles(fields: Mapping[str, Json], kind: EntityKind) -> list[str]:
    match kind:
        case EntityKind.ITEM:
            return [str(fields.get("title", ""))]
        case EntityKind.USER:
            return titles_in(fields)
        case EntityKind.GROUP:
            return member_titles(fields)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case."""
    return tuple(re.findall(r"\w+", text.lower()))


def spaced(words: Iterable[str]) -> str:
    """Return words as one text in which a run of whole words can be looked for, spaced as well."""
    return f" {' '.join(words)} "


def stems_of(words: Iterable[str]) -> frozenset[str]:
    """Return what telling words begin with, without marks: "Animation" and "animated" agree."""
    return frozenset(
        _unmarked(word)[:_STEM_LETTERS].replace("y", "i")
        for word in words
        if len(word) >= _LEAST_STEM_LETTERS and not word.isdecimal() and word not in FUNCTION_WORDS
    )


def ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Return every run of so many words."""
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def first_match(
    case: Case, pattern: re.Pattern[str], code: Rejection, *, but_titles: bool = False
) -> Fault | None:
    """Return the fault of the first factor that the pattern is found in, lower-cased.

    `but_titles`: what it is called says nothing, whatever its words are: "Batteries Not Included".
    """
    titles = _titles_pattern(case.subject.names) if but_titles else None
    for name, text in case.factors.items():
        plain = text.lower().replace("’", "'")
        named = [match.span() for match in titles.finditer(plain)] if titles else []
        for found in pattern.finditer(plain):
            if not any(start <= found.start() and found.end() <= end for start, end in named):
                return code, name
    return None


def _titles_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    titles = [r"\W+".join(map(re.escape, name.split())) for name in names if name]
    return re.compile(rf"\b(?:{'|'.join(titles)})\b") if titles else None


@lru_cache(maxsize=16)
def _runs_of_rules(domain: Domain) -> frozenset[tuple[str, ...]]:
    questions = tuple(f"- {name}{end}: " for name in domain.factor_names for end in ("", "_N"))
    prompts = (rules, user_rules, group_rules, shared_rules)
    lines = "\n".join(rules_of(domain) for rules_of in prompts).splitlines()
    return frozenset(
        run
        for line in lines
        if not line.startswith(questions)
        for run in ngrams(words_of(line), RULE_RUN)
    )


def _unmarked(word: str) -> str:
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFKD", word) if char.isalnum())


def _strings(value: Json) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            return [text for entry in value.values() for text in _strings(entry)]
        case list() | tuple():
            return [text for entry in value for text in _strings(entry)]
        case _:
            return [] if value is None else [str(value)]
