"""A bounded memory of what was asked about of late, and of what was answered.

It knows which words tell the items of a catalogue apart, which other item an answer would fit, and
what is said of everything. Owned by one gate; no clock: what is oldest goes first.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import TypeVar

from workers.knowledge.quality_case import Subject

_Key = TypeVar("_Key")

MOST_SUBJECTS = 512
_ENOUGH_SUBJECTS = 32
_RARE_SHARE = 0.02
_RARE_LEAST = 2
_OVERLAPS_KEPT = 128
_USUAL_SHARE = 0.75


class RecentAnswers:
    """What the latest subjects were told of and what was said of each, by factor."""

    def __init__(self, most: int = MOST_SUBJECTS) -> None:
        self._most = most
        self._said: OrderedDict[Subject, Mapping[str, str]] = OrderedDict()
        self._told_of: dict[str, set[Subject]] = {}
        self._said_of: dict[tuple[str, str], set[Subject]] = {}
        self._overlaps: deque[bool] = deque(maxlen=_OVERLAPS_KEPT)

    def __len__(self) -> int:
        return len(self._said)

    def is_rare(self, stem: str) -> bool:
        """Whether few subjects are told of with this word; every word is while few are known."""
        if len(self._said) < _ENOUGH_SUBJECTS:
            return True
        most = max(_RARE_LEAST, _RARE_SHARE * len(self._said))
        return len(self._told_of.get(stem, ())) <= most

    def answers_usually_overlap(self) -> bool:
        """Whether good answers are known to share words with their fields.

        They do not where the two are of different languages, or the fields say next to nothing.
        """
        known = len(self._overlaps)
        return known >= _ENOUGH_SUBJECTS and sum(self._overlaps) >= _USUAL_SHARE * known

    def shared_with_another(self, subject: Subject, stems: frozenset[str]) -> int:
        """Return how many rare words an answer shares with the fields of the other it fits best."""
        others = Counter(
            other
            for stem in stems
            if self.is_rare(stem)
            for other in self._told_of.get(stem, ())
            if not other.is_akin_to(subject)
        )
        return max(others.values(), default=0)

    def said_of_others(self, subject: Subject, factor: str, text: str) -> int:
        """Return of how many others the same was said under the same factor."""
        others = self._said_of.get((factor, text), ())
        return sum(not other.is_akin_to(subject) for other in others)

    def add(self, subject: Subject, said: Mapping[str, str], *, overlaps: bool | None) -> None:
        """Remember an answer, in place of an earlier one about the same, and forget the oldest.

        Whether it shares words with its fields does not count (None) when it has other faults.
        """
        if overlaps is not None:
            self._overlaps.append(overlaps)
        self._forget(subject)
        self._said[subject] = said
        for stem in subject.stems:
            self._told_of.setdefault(stem, set()).add(subject)
        for entry in said.items():
            self._said_of.setdefault(entry, set()).add(subject)
        if len(self._said) > self._most:
            self._forget(next(iter(self._said)))

    def _forget(self, subject: Subject) -> None:
        for entry in self._said.pop(subject, {}).items():
            _discard(self._said_of, entry, subject)
        for stem in subject.stems:
            _discard(self._told_of, stem, subject)


def _discard(index: dict[_Key, set[Subject]], key: _Key, subject: Subject) -> None:
    subjects = index.get(key)
    if subjects is not None:
        subjects.discard(subject)
        if not subjects:
            del index[key]
