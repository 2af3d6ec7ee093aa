"""Answers that say nothing: echoes of what was asked or told, and boilerplate. Pure."""

import re
from collections.abc import Sequence

from schemas.entities import EntityKind
from schemas.reasons import Rejection
from workers.knowledge.quality_case import FUNCTION_WORDS, Case, Fault, ngrams
from workers.knowledge.quality_manners import speaks_as_somebody
from workers.knowledge.recent_answers import RecentAnswers

_PEOPLE = "people"
"""The factor that may consist of names from the fields: they are what is asked for."""

_KIND_WORDS = frozenset(
    "film films movie movies book books novel product products item items cinema genre genres"
    " subgenre theme themes tone mood title titles story stories people cast actor actors actress"
    " starring stars director directors directed author authors writer writers written brand brands"
    " audience audiences viewer viewers reader readers fan fans lover lovers category kind kinds"
    " type directs plays features featuring".split()
)

_COPIED_WORDS = 12
_ASKED_WORDS = 6
_MOST_COPIES = 1
_TITLE_WORDS_SHARE = 2 / 3


def find_echo(case: Case) -> Fault | None:
    """Return a factor that is the question or the title, or two that are values of the fields."""
    copies = 0
    asked = {name: frozenset(words) - FUNCTION_WORDS for name, words in case.asks.items()}
    titled = frozenset(case.title.split())
    for name, words in case.words.items():
        if _shares_run(words, case.asks[name], _ASKED_WORDS):
            return Rejection.ECHO, f"{name}: repeats the question"
        if _shares_run(words, case.prose, _COPIED_WORDS):
            return Rejection.ECHO, f"{name}: {_COPIED_WORDS} words of a field in a row"
        own = frozenset(words) - FUNCTION_WORDS - _KIND_WORDS - {name}
        own = frozenset(word for word in own if not word.isdecimal())
        if not own or (not case.is_about_many and own <= titled):
            return Rejection.ECHO, f"{name}: nothing but the title or what is asked"
        if case.kind is not EntityKind.USER and any(own <= asks for asks in asked.values()):
            return Rejection.ECHO, f"{name}: repeats the question"
        if name != _PEOPLE or case.is_about_many:
            is_field = own <= case.values or case.tells(words)
            copies += is_field or _only_names_titles(case, words)
    if copies > _MOST_COPIES:
        return Rejection.ECHO, f"{copies} of {len(case.factors)} factors are field values"
    return None


def _only_names_titles(case: Case, words: Sequence[str]) -> bool:
    """Whether a text about a taste or a group lists titles instead of what they have in common."""
    if not case.is_about_many:
        return False
    known = frozenset(case.title.split())
    return sum(word in known for word in words) >= _TITLE_WORDS_SHARE * len(words)


_VAGUE = (
    frozenset(
        # what everything is
        "read reading page turner pageturner storytelling storyteller tale tales plot narrative"
        " character characters acting performance performances performers direction crew team"
        " maker manufacturer company picture watch watching viewing view experience entertainment"
        " journey ride rollercoaster pace atmosphere style feel feeling feelings emotion emotions"
        " vision touch quality review reviews critic critics acclaim reception award awards prize"
        " prizes success hit box office bestseller everyone everybody anyone anybody someone people"
        " person ages age kids adults children grown ups family families friends night gift"
        " customer customers buyer buyers user users crowd world life lives thing things way ways"
        " moment moments part parts time times year years level number lot lots fun heart humour"
        " humor action surprise surprises twist twists turn turns edge seat screen start finish"
        " beginning end work works talent talents skill skills chemistry leads lead impression test"
        " challenge challenges obstacle obstacles lesson lessons issue issues goal goals dream"
        " dreams relationship relationships growth discovery self identity friendship love loss"
        " hope humanity condition being human performance ease use price value money needs need"
        " design attention detail details beginners professionals range variety taste something"
        " everything anything nothing nobody woman man"
        # what everything is called
        " good great best better nice fine superb outstanding excellent exceptional brilliant"
        " wonderful fantastic fantastical amazing awesome incredible terrific terrifically"
        " spectacular stunning beautiful gorgeous impressive remarkable memorable unforgettable"
        " iconic timeless classic masterful masterpiece master talented gifted skilled skilful"
        " expert renowned famous known leading star all-star ensemble whole entire strong rich deep"
        " depth complex layered universal relatable broad wide widely general average various"
        " different numerous several many countless similar like unique original fresh new"
        " creative high top low well must compelling captivating gripping engaging entertaining"
        " enjoyable exciting interesting intriguing fascinating thrilling thought provoking"
        " thoughtful meaningful emotional moving touching powerful heartfelt heartwarming haunting"
        " lyrical immersive atmospheric moody lighthearted charming full perfect perfectly ideal"
        " suitable suited mixed positive popular successful beloved loved loves loving praised"
        " praising acclaimed critically highly received appreciated admired cherished celebrated"
        " talked satisfied trusted reliable versatile durable comfortable sleek modern stylish"
        " designed worldwide international internationally alike hard easy right true"
        " truly really visually beautifully expertly emotionally lasting left difficult"
        # what a weak model says of everything
        " ever filmed wow shocking feat greatest dark mysterious"
        " suspense suspenseful secret secrets hidden laughter joy joys joyful tears happy sad"
        " mysteries shadows behind revealed hero heroes"
        # what everything does
        " enjoy enjoys enjoyed appreciate appreciates value values like likes want wants look"
        " looking looks explore explores explored deal deals tell tells told follow follows bring"
        " brings deliver delivers keep keeps guess guessing face faces overcome overcomes learn"
        " learns achieve evoke evokes relate come comes put miss stand stands blend blends mix"
        " mixes win won winning shot crafted fit fits meet give gives giving find finds finding"
        " seem seems seen see consider considers considered drawn prefers prefer cares care"
        " feature features".split()
    )
    | _KIND_WORDS
    | FUNCTION_WORDS
)
_SUPERLATIVE = re.compile(r"^(?:one of )?(?:the )?(?:most \w+|best|\w+est) \w.* ever(?: \w+)?\W*$")
"""What is said of everything: "one of the most touching stories ever written"."""

_VAGUE_SHARE = 0.85
_VAGUE_FACTORS = 0.5
_SAID_OF_OTHERS = 2


def find_generic(case: Case, recent: RecentAnswers) -> Fault | None:
    """Return an answer of which half would fit nearly every item of the catalogue."""
    vague = sum(
        _is_vague(words)
        or _SUPERLATIVE.search(" ".join(words)) is not None
        or speaks_as_somebody(case, case.factors[name])
        for name, words in case.words.items()
    )
    if vague >= _VAGUE_FACTORS * len(case.factors):
        return Rejection.GENERIC, f"{vague} of {len(case.factors)} factors would fit anything"
    again = sum(
        recent.said_of_others(case.subject, name, text) >= _SAID_OF_OTHERS
        for name, text in said(case).items()
        if text
    )
    if again >= _VAGUE_FACTORS * len(case.factors):
        return Rejection.GENERIC, f"{again} of {len(case.factors)} factors were said of others"
    return None


def said(case: Case) -> dict[str, str]:
    """Return what is said by factor, without the words of the fields that fill a template."""
    known = case.known
    return {
        name: " ".join(word for word in words if word not in known)
        for name, words in case.words.items()
    }


def _is_vague(words: Sequence[str]) -> bool:
    telling = [word for word in words if word not in FUNCTION_WORDS and len(word) > 1]
    vague = sum(word in _VAGUE for word in telling)
    return vague > 0 and vague >= _VAGUE_SHARE * len(telling)


def _shares_run(words: Sequence[str], source: Sequence[str], length: int) -> bool:
    runs = set(ngrams(source, length))
    return any(gram in runs for gram in ngrams(words, length))
