"""The quality gate: which answers of a language model may become knowledge.

An answer is refused for the first thing found wrong with it, under a stable code. An answer about a
user's taste passes the same checks; in place of one title it is held against all the titles it was
made from, and must be about the taste, not about one of them. So does one about a group, which must
say what the members share, not that they share nothing.

The checks are pure; `QualityGate` remembers a bounded number of answers, because only beside others
does it show that an answer would fit any item, or fits another one.
"""

from collections.abc import Callable, Mapping

from schemas.entities import EntityKind
from schemas.fingerprints import Json
from schemas.reasons import Rejection
from workers.knowledge.prompts import Domain
from workers.knowledge.quality_case import Case, Fault, case_of
from workers.knowledge.quality_entity import (
    find_entity,
    find_other_people,
    find_stranger,
    overlap,
)
from workers.knowledge.quality_examples import find_copied_example
from workers.knowledge.quality_manners import (
    find_hedging,
    find_instructions,
    find_refusal,
    find_speaker,
    find_url,
)
from workers.knowledge.quality_substance import find_echo, find_generic, said
from workers.knowledge.quality_words import (
    find_garbled,
    find_language,
    find_repetition,
    find_too_long,
    find_too_short,
)
from workers.knowledge.recent_answers import RecentAnswers
from workers.knowledge.writer import Answer, Rejected

_CHECKS: tuple[Callable[[Case], Fault | None], ...] = (
    find_too_short,
    find_too_long,
    find_refusal,
    find_instructions,
    find_url,
    find_language,
    find_hedging,
    find_garbled,
    find_repetition,
    find_echo,
    find_copied_example,
    find_entity,
)
"""In the order they look: the first fault found is the one that is told."""


def check(
    answer: Answer,
    fields: Mapping[str, Json],
    domain: Domain,
    kind: EntityKind = EntityKind.ITEM,
) -> Rejection | None:
    """Return why the answer about an entity with these fields cannot be used, None if it can.

    It is judged by itself, as the first answer of a gate is.
    """
    rejected = QualityGate(domain).judge(answer, fields, kind)
    return None if rejected is None else rejected.rejection


class QualityGate:
    """The gate of one domain, as the knowledge lane uses it.

    `brief`: answers are too short to be expected to share words with their fields.
    """

    def __init__(self, domain: Domain, *, brief: bool = False) -> None:
        self._domain = domain
        self._brief = brief
        self._recent = {kind: RecentAnswers() for kind in EntityKind}

    def judge(
        self, answer: Answer, fields: Mapping[str, Json], kind: EntityKind = EntityKind.ITEM
    ) -> Rejected | None:
        """Return the rejection of the answer, ready to be settled with, or None if it passes."""
        found = self.faults(answer, fields, kind)
        return Rejected(*found[0], answer.raw) if found else None

    def faults(
        self, answer: Answer, fields: Mapping[str, Json], kind: EntityKind = EntityKind.ITEM
    ) -> list[Fault]:
        """Return one fault a check that finds any; the first is what `judge` would tell."""
        missing = [name for name in self._domain.factor_names if name not in answer.factors]
        if missing:
            return [(Rejection.MISSING_FACTOR, ", ".join(missing))]
        asked = {name: answer.factors[name] for name in self._domain.factor_names}
        case = case_of(asked, fields, self._domain, kind)
        recent = self._recent[kind]
        found = [fault for find in _CHECKS if (fault := find(case)) is not None]
        generic = find_generic(case, recent)
        if generic is not None:
            found.append(generic)
        overlaps = None if found or self._brief else any(overlap(case, recent))
        if not found and (
            fault := find_speaker(case)
            or find_other_people(case, recent)
            or find_stranger(case, recent)
        ):
            found.append(fault)
        recent.add(case.subject, said(case), overlaps=overlaps)
        return found
