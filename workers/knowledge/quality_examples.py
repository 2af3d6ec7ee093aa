"""Answers that hand back an example of the prompt instead of speaking of what was asked. Pure.

The examples are about invented things: whatever of theirs is found in an answer was copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from schemas.fingerprints import Json
from schemas.reasons import Rejection
from workers.knowledge.prompts import Domain
from workers.knowledge.quality_case import FUNCTION_WORDS, Case, Fault, ngrams, spaced, words_of

_RUN = 3
_SHARE_OF_A_FACTOR = 0.5
_LEAST_RUNS = 2
_MANY_RUNS = 3
"""As in five words in a row: too many for chance, however long the text around them is."""

_LEAST_WORDS_OF_A_NAME = 2
_KINDS = frozenset({"genres", "genre", "category", "categories"})
"""Fields of which real things have the same values."""


def find_copied_example(case: Case) -> Fault | None:
    """Return a factor in the words of an example, or with the name of something in one."""
    shown = _shown(case.domain)
    for name, words in case.words.items():
        runs = _telling_runs(words)
        copied = sum(run in shown.runs and not case.tells(run) for run in runs)
        if copied >= _MANY_RUNS or copied >= max(_LEAST_RUNS, _SHARE_OF_A_FACTOR * len(runs)):
            return Rejection.ECHO, f"{name}: the words of an example"
        text = spaced(words)
        if any(spaced(called) in text and not case.tells(called) for called in shown.names):
            return Rejection.ECHO, f"{name}: a name from an example"
    return None


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a domain's examples say, as runs of words, and whom and what they name."""

    runs: frozenset[tuple[str, ...]]
    names: frozenset[tuple[str, ...]]


@lru_cache(maxsize=16)
def _shown(domain: Domain) -> _Shown:
    texts = [text for example in domain.examples for text in example.texts]
    names = [words_of(name) for example in domain.examples for name in _names(example.fields)]
    return _Shown(
        frozenset(run for text in texts for run in _telling_runs(words_of(text))),
        frozenset(words for words in names if len(words) >= _LEAST_WORDS_OF_A_NAME),
    )


def _names(value: Json) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            named = (entry for name, entry in value.items() if name not in _KINDS)
            return [name for entry in named for name in _names(entry)]
        case list() | tuple():
            return [name for entry in value for name in _names(entry)]
        case _:
            return []


def _telling_runs(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [run for run in ngrams(words, _RUN) if not FUNCTION_WORDS.issuperset(run)]
