"""The quality gate: which answers of a language model may become knowledge. Pure.

An answer is refused for the first thing found wrong with it, under a stable code. The thresholds
were set on recorded answers of a strong model (all must pass) and on the typical failures of weak
ones: refusals, hedging, loops, copies of the prompt, and text steered by a hostile catalogue.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from schemas.fingerprints import Json
from schemas.reasons import Rejection
from workers.knowledge.prompts import Domain
from workers.knowledge.writer import Answer, Rejected

Fault = tuple[Rejection, str]
"""A code and what was found: factor names and counts, never the answer's own words."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What every check looks at: lower-cased words; `prose` are those of text fields, not lists."""

    factors: Mapping[str, str]
    words: Mapping[str, tuple[str, ...]]
    fields: str
    prose: tuple[str, ...]
    title: str
    domain: Domain


def check(answer: Answer, fields: Mapping[str, Json], domain: Domain) -> Rejection | None:
    """Return why the answer about an item with these fields cannot be used, None if it can."""
    fault = find_fault(answer, fields, domain)
    return None if fault is None else fault[0]


def find_fault(answer: Answer, fields: Mapping[str, Json], domain: Domain) -> Fault | None:
    """Return the first fault of the answer with its detail, None if there is none."""
    factors = answer.factors
    missing = [name for name in domain.factor_names if name not in factors]
    if missing:
        return Rejection.MISSING_FACTOR, ", ".join(missing)
    asked = {name: factors[name] for name in domain.factor_names}
    case = _Case(
        factors=asked,
        words={name: _words(text) for name, text in asked.items()},
        fields=" ".join(_words(" ".join(_strings(fields)))),
        prose=_words(" ".join(text for text in fields.values() if isinstance(text, str))),
        title=" ".join(_words(str(fields.get("title", "")))),
        domain=domain,
    )
    for find in _CHECKS:
        fault = find(case)
        if fault is not None:
            return fault
    return None


class QualityGate:
    """The gate of one domain, as the knowledge lane uses it."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def judge(self, answer: Answer, fields: Mapping[str, Json]) -> Rejected | None:
        """Return the rejection of the answer, ready to be settled with, or None if it passes."""
        fault = find_fault(answer, fields, self._domain)
        return None if fault is None else Rejected(fault[0], fault[1], answer.raw)


def _length(case: _Case) -> Fault | None:
    for name, text in case.factors.items():
        if not text.strip():
            return Rejection.EMPTY_FACTOR, name
        if len(text) < case.domain.min_factor_chars:
            return Rejection.TOO_SHORT, f"{name}: {len(text)} characters"
        # At the bound itself the schema cut the text off in the middle of a thought.
        if len(text) >= case.domain.max_factor_chars:
            return Rejection.TOO_LONG, f"{name}: {len(text)} characters"
    return None


_REFUSALS = re.compile(
    r"\b(?:as an ai|as a (?:large )?language model|(?:i am|i'm|im) (?:sorry|unable|not able)"
    r"|i apologi[sz]e|sorry,? (?:but|i)"
    r"|i (?:cannot|can't|can not|won't|will not|do not|don't|am not able to|could not|couldn't)"
    r" (?:actually |currently )?(?:provide|answer|help|describe|write|comply|assist|fulfil|find"
    r"|determine|access|have|say|verify|browse|know (?:this|the|of|about|enough|anything))"
    r"|(?:unable to|cannot) (?:answer|provide|describe|comply|determine|be determined))\b"
)


def _refusal(case: _Case) -> Fault | None:
    return _first_match(case, _REFUSALS, Rejection.REFUSAL)


_NOTHING_KNOWN = re.compile(
    r"\b(?:(?:no|not enough|limited|insufficient|without (?:more|further|additional))"
    r" (?:\w+ )?(?:information|details?|data)\b"
    r"|(?:not|isn't|aren't|wasn't)"
    r" (?:specified|provided|available|known|mentioned|stated|given|clear)\b"
    r"|information (?:is )?(?:not|unavailable)\b|to be determined|n/a\b|please (?:provide|specify)"
    r"|based on the (?:title|(?:given |provided )?(?:information|fields?|data|catalogue))\b"
    r"|(?:it is|it's) (?:unclear|unknown|hard|difficult|likely|possible|impossible)\b"
    r"|unknown (?:director|author|brand|genre|title)\b)"
)
_MAYBE = frozenset(
    "may might maybe possibly perhaps probably likely presumably apparently seemingly seems appears"
    " unclear unknown unspecified could".split()
)
_MAYBE_SHARE = 0.08
_MAYBE_LEAST = 3


def _hedging(case: _Case) -> Fault | None:
    fault = _first_match(case, _NOTHING_KNOWN, Rejection.HEDGING)
    if fault is not None:
        return fault
    known = frozenset(case.fields.split())  # "Unknown" may be the title
    words = [word for words in case.words.values() for word in words]
    doubts = sum(1 for word in words if word in _MAYBE and word not in known)
    if doubts >= _MAYBE_LEAST and doubts >= _MAYBE_SHARE * len(words):
        return Rejection.HEDGING, f"{doubts} of {len(words)} words"
    return None


_LOOP_RUN = 3
_SAME_WORD_RUN = 5  # "It's a Mad, Mad, Mad, Mad World" is a title
_LEAST_DISTINCT_WORDS = 0.45
_MOST_ALIKE = 0.6
_LEAST_DISTINCT_TRIGRAMS = 0.5


def _repetition(case: _Case) -> Fault | None:
    for name, words in case.words.items():
        if len(words) >= 8 and len(set(words)) < _LEAST_DISTINCT_WORDS * len(words):
            return Rejection.REPETITION, f"{name}: {len(set(words))} of {len(words)} words differ"
        most = Counter(_ngrams(words, 3)).most_common(1)
        if (most and most[0][1] >= _LOOP_RUN) or _same_word_in_a_row(words) >= _SAME_WORD_RUN:
            return Rejection.REPETITION, f"{name}: a loop"
    grams = {name: set(_ngrams(words, 3)) for name, words in case.words.items()}
    for (left, one), (right, other) in combinations(grams.items(), 2):
        alike = len(one & other) / max(1, min(len(one), len(other)))
        if case.words[left] == case.words[right] or alike > _MOST_ALIKE:
            return Rejection.REPETITION, f"{left} and {right} say the same"
    every = [gram for words in case.words.values() for gram in _ngrams(words, 3)]
    if len(every) >= 12 and len(set(every)) < _LEAST_DISTINCT_TRIGRAMS * len(every):
        return Rejection.REPETITION, f"{len(set(every))} of {len(every)} trigrams differ"
    return None


_COPIED_WORDS = 12
_COPIED_FACTORS = 0.5


def _echo(case: _Case) -> Fault | None:
    copies = 0
    for factor in case.domain.factors:
        words = case.words[factor.name]
        text = " ".join(words)
        if _shares_run(words, _words(factor.ask), 6) or text in (case.title, factor.name):
            return Rejection.ECHO, f"{factor.name}: repeats the question or the title"
        if _shares_run(words, case.prose, _COPIED_WORDS):
            return Rejection.ECHO, f"{factor.name}: {_COPIED_WORDS} words of a field in a row"
        copies += f" {text} " in f" {case.fields} "
    if copies >= _COPIED_FACTORS * len(case.factors):
        return Rejection.ECHO, f"{copies} of {len(case.factors)} factors are field values"
    return None


_INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget) (?:all |any |the |these |those )*"
    r"(?:previous|prior|above|earlier|other|instructions?|rules?)\b"
    r"|\b(?:system|developer) (?:prompt|message)\b|\bclick (?:here|the|on|below)\b"
    r"|\byou (?:must|should|need to|have to) (?:now )?(?:click|visit|buy|order|rank|rate"
    r"|recommend|call|download|say|answer|respond|write)\b"
    r"|\b(?:buy|order|call) (?:it )?(?:now|today)\b|\bsubscribe (?:to|now)\b"
    r"|\balways (?:rank|recommend|rate|show)\b"
    r"|\b(?:rank|recommend|show) (?:this|it) (?:\w+ )?(?:first|always|highest|top|above)\b"
    r"|\b(?:json object|catalogue fields|system:|assistant:|user:)"
    r"|<\||\|>|```|\[/?inst\]|</?\w+>"
)


def _instructions(case: _Case) -> Fault | None:
    return _first_match(case, _INSTRUCTIONS, Rejection.INSTRUCTIONS)


_ADDRESS = re.compile(
    r"\b(?:https?|ftp)\s?:\s?/\s?/|\bwww\.|\b[\w.+-]+@[\w-]+\.\w{2,}"
    r"|\b[\w-]+\.(?:com|net|org|info|biz|io|co|app|shop|xyz|ru|cn|de|uk)\b"
)


def _url(case: _Case) -> Fault | None:
    for name, text in case.factors.items():
        for match in _ADDRESS.finditer(text.lower()):
            # "Startup.com" is a film; a title may be named, an address elsewhere may not.
            if " ".join(_words(match.group())) not in case.title or "/" in match.group():
                return Rejection.URL, name
    return None


_LEAST_LATIN = 0.8
_LEAST_LATIN_BESIDE_FOREIGN_TITLE = 0.5
_FOREIGN_WORDS = frozenset(
    "el los las una unos del por con para que es sus una muy como der die das und ist ein eine mit"
    " für von nicht auf dem den les des une est dans avec pour sur qui il della che è una con per"
    " nel gli uma não com os em".split()
)
_MOST_FOREIGN_WORDS = 0.15


def _language(case: _Case) -> Fault | None:
    letters = "".join(char for text in case.factors.values() for char in text if char.isalpha())
    latin = _latin_share(letters)
    is_foreign_title = _latin_share(case.title) < _LEAST_LATIN
    if latin < (_LEAST_LATIN_BESIDE_FOREIGN_TITLE if is_foreign_title else _LEAST_LATIN):
        return Rejection.WRONG_LANGUAGE, f"{latin:.0%} of the letters are Latin"
    words = [word for words in case.words.values() for word in words]
    foreign = sum(1 for word in words if word in _FOREIGN_WORDS)
    if foreign > _MOST_FOREIGN_WORDS * len(words):
        return Rejection.WRONG_LANGUAGE, f"{foreign} of {len(words)} words are not English"
    return None


_NAMED = re.compile(r"\b(?:titled|called|entitled|named) [\"'“‘«]([^\"'”’»]{2,80})[\"'”’»]")


def _entity(case: _Case) -> Fault | None:
    noun = case.domain.noun
    for name, text in case.factors.items():
        lowered = text.lower()
        for foreign in case.domain.foreign_nouns:
            if f"this {foreign} " in f"{lowered} ":
                return Rejection.WRONG_ENTITY, f"{name}: calls the {noun} a {foreign}"
        if re.match(rf"(?:the|this|a) {noun} ", lowered) and (called := _NAMED.search(lowered)):
            other = " ".join(_words(called.group(1)))
            if other not in case.title and case.title not in other:
                return Rejection.WRONG_ENTITY, f"{name}: calls the {noun} by another name"
    return None


_CHECKS: Sequence[Callable[[_Case], Fault | None]] = (
    _length,
    _refusal,
    _instructions,
    _url,
    _language,
    _hedging,
    _repetition,
    _echo,
    _entity,
)


def _first_match(case: _Case, pattern: re.Pattern[str], code: Rejection) -> Fault | None:
    for name, text in case.factors.items():
        if pattern.search(text.lower().replace("’", "'")):
            return code, name
    return None


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def _same_word_in_a_row(words: Sequence[str]) -> int:
    longest = run = 0
    previous = ""
    for word in words:
        run = run + 1 if word == previous else 1
        longest, previous = max(longest, run), word
    return longest


def _shares_run(words: Sequence[str], source: Sequence[str], length: int) -> bool:
    runs = set(_ngrams(source, length))
    return any(gram in runs for gram in _ngrams(words, length))


def _latin_share(text: str) -> float:
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0
    # Latin letters with their marks end at U+024F; U+1E00-1EFF holds the Vietnamese ones.
    latin = sum(1 for char in letters if char <= "ɏ" or "Ḁ" <= char <= "ỿ")
    return latin / len(letters)


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
