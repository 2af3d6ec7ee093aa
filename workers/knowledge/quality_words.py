"""Answers that are not written well enough to be read: their length, debris, language, loops. Pure.

What is debris in any language is told by marks and by the shape of words, never by a dictionary:
names of films and people are in none.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from schemas.reasons import Rejection
from workers.knowledge.quality_case import FUNCTION_WORDS, Case, Fault, ngrams, words_of


def find_too_short(case: Case) -> Fault | None:
    """Return a factor that is empty, or too short to be a phrase."""
    for name, text in case.factors.items():
        if not text.strip():
            return Rejection.EMPTY_FACTOR, name
        if len(text) < case.domain.min_factor_chars:
            return Rejection.TOO_SHORT, f"{name}: {len(text)} characters"
        # Scripts without spaces write a whole phrase as one run.
        if len(_SPOKEN.findall(text)) < 2 and _latin_share(text) >= _LEAST_LATIN:
            return Rejection.TOO_SHORT, f"{name}: a single word"
    return None


_SPOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def find_too_long(case: Case) -> Fault | None:
    """Return a factor that reaches its bound: the schema cut it off in the middle of a thought."""
    for name, text in case.factors.items():
        if len(text) >= case.domain.max_factor_chars:
            return Rejection.TOO_LONG, f"{name}: {len(text)} characters"
    return None


_DEBRIS = re.compile(
    r"&#?\w{2,8};|&nbsp|[{}|^~\\`<>=]|[^\W_]_+[^\W_]|__|(?<![\w*])\*\*|\*\*(?![\w*])|\[\W|\W\]|##"
    r"|#\w+ .*#\w|\w\(\w{3,}\)"
    r"|[\"'“”‘’]\s*:\s*[\"'“”‘’\[]|[“”\"]\s*[,;]\s*$|\w\+\w+\+|(?:\w{3,}/){4}|[^\s\w.!?…-]{4,}"
    r"|\b\d{9,}|\b[a-z]{5,}\d+\b|\b[A-Z]{14,}\b"
    r"|\b[a-z](?:\w*[a-z])?[A-Z]\w*[a-z][A-Z]\w*[a-z][A-Z]"
)
_LONGEST_WORD = 24
_LONGEST_GLUED = 16
_HUMP = re.compile(r"[a-zß-ÿ][A-ZÀ-Þ]")
_NO_VOWEL = re.compile(r"\b[bcdfghjklmnpqrstvwxz]{4,}\b")


def find_garbled(case: Case) -> Fault | None:
    """Return a factor with leftover markup, glued words, or what nobody can say."""
    for name, text in case.factors.items():
        # A title may hold anything: "[REC]", "V/H/S", "eXistenZ", "F***ed".
        for match in _DEBRIS.finditer(text):
            if not case.tells(words_of(match.group())):
                return Rejection.GARBLED, f"{name}: marks"
        for bracketed in re.findall(r"\[([^\]]*)\]", text):
            if len(bracketed.split()) > 1 or not bracketed:
                return Rejection.GARBLED, f"{name}: brackets"
        # "1) ... 2) ..." is a list.
        if text.count("[") != text.count("]") or text.count("(") > text.count(")"):
            return Rejection.GARBLED, f"{name}: a bracket without its other half"
        for word in words_as_written(text):
            if _is_glued(case, word):
                return Rejection.GARBLED, f"{name}: glued words"
        if len(_NO_VOWEL.findall(text)) >= 2:
            return Rejection.GARBLED, f"{name}: words without a vowel"
    return None


def _is_glued(case: Case, word: str) -> bool:
    if word.lower() in case.known:
        return False
    # "MorganFreeman" is glued, "CollegeHumor" is a name, and one that prose writes as "Sea World".
    parts = _HUMP.sub(lambda hump: f"{hump[0][0]} {hump[0][1]}", word).lower().split()
    longest = _LONGEST_WORD if len(parts) == 1 else _LONGEST_GLUED
    return len(word) > longest or (len(parts) > 1 and case.values.issuperset(parts))


def words_as_written(text: str) -> list[str]:
    """Return the words as they are written; a hyphen parts them."""
    return re.findall(r"[^\W_]+", text)


_LEAST_LATIN = 0.8
_LEAST_LATIN_OF_AN_ANSWER = 0.5
_FOREIGN_WORDS = frozenset(
    # Spanish, German, French, Italian, Portuguese, and a few of others; none that English has too.
    "el los las una unos unas del al por con para que es su sus muy como más pero está este esta"
    " der und ist ein eine einen einem mit für von vom nicht auf dem das im zu zum zur nach wird"
    " sich oder seine ihre über"
    " le les une dans avec pour sur qui et ou il elle aux du ce cette est sont puis très par"
    " della delle dei degli nel nella alla gli che è sono più suo sua dalla tra"
    " uma não os dos das pelo mais seu"
    " och att som inte het een voor niet zijn bir ve için çok nie jest się przez".split()
)
_PARTICLES = frozenset("de la di da y e en un des se les den der van von al".split())
"""Words of names too: they only count beside others."""

_LEAST_FOREIGN_WORDS = 2
_FOREIGN_SHARE_OF_A_FACTOR = 0.25
_LEAST_FOREIGN_WORDS_IN_ALL = 4


def find_language(case: Case) -> Fault | None:
    """Return an answer, or a factor, that is in another language than the domain's."""
    # One factor may quote a foreign title at length.
    is_foreign_title = _latin_share(case.title) < _LEAST_LATIN
    texts = [" ".join(case.factors.values())] if is_foreign_title else case.factors.values()
    latin = min(map(_latin_share, texts))
    if latin < _LEAST_LATIN_OF_AN_ANSWER:
        return Rejection.WRONG_LANGUAGE, f"{latin:.0%} of the letters are Latin"
    in_all = english_in_all = 0
    for name, text in case.factors.items():
        # As written: the particles of titles and names are capitals or stand beside English.
        words = [word for word in words_as_written(text) if word not in case.known]
        certain = sum(word in _FOREIGN_WORDS for word in words)
        foreign = sum(word in _FOREIGN_WORDS or word in _PARTICLES for word in words)
        english = sum(word in FUNCTION_WORDS for word in words)
        if (
            certain >= _LEAST_FOREIGN_WORDS
            and foreign > english
            and foreign >= _FOREIGN_SHARE_OF_A_FACTOR * len(words)
        ):
            return Rejection.WRONG_LANGUAGE, f"{name}: {foreign} of {len(words)} words"
        in_all, english_in_all = in_all + foreign, english_in_all + english
    if in_all >= _LEAST_FOREIGN_WORDS_IN_ALL and in_all > english_in_all:
        return Rejection.WRONG_LANGUAGE, f"{in_all} words are not English"
    return None


_LOOP_RUN = 3  # so a word five times over; "It's a Mad, Mad, Mad, Mad World" is a title
_LEAST_DISTINCT_WORDS = 0.45
_LONG = 8
_LEAST_DISTINCT_WORDS_IN_SHORT = 0.5  # "New York, New York" is a place, "dark, dark, dark" no mood
_MOST_ALIKE = 0.6


def find_repetition(case: Case) -> Fault | None:
    """Return a factor that goes round in a loop, or two that say the same."""
    for name, words in case.words.items():
        if _goes_round(words):
            return Rejection.REPETITION, f"{name}: {len(set(words))} of {len(words)} words differ"
        most = Counter(ngrams(words, 3)).most_common(1)
        if most and most[0][1] >= _LOOP_RUN:
            return Rejection.REPETITION, f"{name}: a loop"
    grams = {name: set(ngrams(words, 3)) for name, words in case.words.items()}
    for (left, one), (right, other) in combinations(grams.items(), 2):
        alike = len(one & other) / max(1, min(len(one), len(other)))
        if case.words[left] == case.words[right] != () or alike > _MOST_ALIKE:
            return Rejection.REPETITION, f"{left} and {right} say the same"
    return None


def _goes_round(words: Sequence[str]) -> bool:
    distinct = len(set(words))
    if len(words) >= _LONG:
        return distinct < _LEAST_DISTINCT_WORDS * len(words)
    return len(words) >= _LOOP_RUN and distinct < _LEAST_DISTINCT_WORDS_IN_SHORT * len(words)


def _latin_share(text: str) -> float:
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 1.0
    # Latin letters with their marks end at U+024F; U+1E00-1EFF holds the Vietnamese ones.
    latin = sum(1 for char in letters if char <= "ɏ" or "Ḁ" <= char <= "ỿ")
    return latin / len(letters)
