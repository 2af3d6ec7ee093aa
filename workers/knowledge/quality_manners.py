"""Answers that do not answer: refusals, hedging, orders and addresses. Pure.

Each check returns the first factor it finds something in. The patterns are those of English; an
answer in another language is held against what it quotes.
"""

import re

from schemas.entities import EntityKind
from schemas.reasons import Rejection
from workers.knowledge.quality_case import RULE_RUN, Case, Fault, first_match, ngrams, words_of

_REFUSALS = re.compile(
    r"\b(?:as an? (?:ai|assistant)|as a (?:large )?language model"
    r"|(?:i am|i'm|im) (?:sorry(?! to)|unable|not able|not allowed|not permitted)|i apologi[sz]e"
    r"|sorry,? (?:but|i)|unfortunately,? i|i'd rather not|i would rather not"
    r"|i (?:must|have to) decline"
    r"|i (?:cannot|can't|can not|won't|will not|do not|don't|am not able to|could not|couldn't)"
    r" (?:actually |currently )?(?:provide|answer|help|describe|write|comply|assist|fulfil|find"
    r"|determine|access|have|say|verify|browse|classify|judge|comment|discuss"
    r"|know (?:this|the|of|about|enough|anything))"
    r"|my (?:training|training data|knowledge) (?:does|do|has|ends)"
    r"|(?:not|in)(?: be)? appropriate (?:for me )?to\b"
    r"|(?:unable to|cannot) (?:answer|provide|describe|comply|determine|be determined))\b"
)


def find_refusal(case: Case) -> Fault | None:
    """Return the factor that declines to answer."""
    return first_match(case, _REFUSALS, Rejection.REFUSAL, but_titles=True)


_SOURCES = r"(?:information|details?|data|synops[ei]s)"
_ASKED = r"(?:cast|director|crew|plot|genre|tone|mood|reception|reputation|author|brand|maker)"
_NOTHING_KNOWN = re.compile(
    rf"\b(?:(?:no|not enough|(?:very )?little|limited|insufficient|without (?:access to )?"
    rf"(?:an?|any|the|more|further|additional)) (?:\w+ )?{_SOURCES}\b"
    r"|(?:not|isn't|aren't|wasn't)"
    r" (?:specified|provided|available|known|mentioned|stated|listed|given|clear)\b"
    r"|(?:(?:is|are|was|were) not|isn't|aren't|wasn't|weren't) included\b"
    rf"|{_ASKED} (?:is |are |remains? )?(?:unknown|unspecified|missing|unavailable|unclear)\b"
    rf"|{_SOURCES} (?:on (?:the|its) \w+ )?(?:is |are )?(?:not|unavailable|missing)\b"
    r"|to be determined|n/a\b|please (?:provide|specify)|unspecified\b"
    r"|(?:based on|judging by|judging from|going by|inferred from) the"
    r" (?:title|(?:given |provided )?(?:information|fields?|data|catalogue|record|description))\b"
    r"|from (?:the given|the provided|what is given)|no \w+ (?:is|are) (?:listed|given|provided)\b"
    r"|(?:it is|it's|is|are) (?:unclear|hard|difficult|impossible)"
    r" to (?:say|tell|know|determine|judge)\b"
    r"|(?:it is|it's) (?:unclear|unknown|hard|difficult|likely|possible|impossible)\b"
    r"|can(?:not|'t) be (?:assessed|determined)|can only be guessed|(?:one|i|we) can only"
    r"|i (?:think|guess|assume|suppose|am not (?:sure|certain))\b"
    r"|unknown (?:director|author|brand|genre|title)\b)"
)
_NOTHING_SHARED = re.compile(
    r"\b(?:no|not any|without (?:an?|any)|lack(?:s|ing)? (?:an?|any)?)"
    r" (?:(?:one|real|obvious|clear|apparent|particular|specific|single) )*"
    r"(?:common|single|specific|shared|unifying|consistent|particular|clear|overarching)\b"
    r"|\bnothing (?:in common|shared)\b|\b(?:may|might|can|will) (?:vary|differ)\b"
    r"|\b(?:vary|varies|differs?) (?:across|among|between|by|from|greatly|widely|in|for|with|too)\b"
    r"|\b(?:varies|vary|differs?)$|\b(?:are|is|were) (?:all )?(?:very |quite )?different\b"
)
_MAYBE = frozenset(
    "may might maybe possibly perhaps probably likely presumably apparently seemingly seems appears"
    " unclear unknown unspecified could".split()
)
_MAYBE_SHARE = 0.2
_MAYBE_LEAST = 2


def find_hedging(case: Case) -> Fault | None:
    """Return the factor that speaks of missing information, or does nothing but guess.

    Of a group, that its members have nothing in common is no information either.
    """
    fault = first_match(case, _NOTHING_KNOWN, Rejection.HEDGING, but_titles=True)
    if fault is None and case.kind is EntityKind.GROUP:
        fault = first_match(case, _NOTHING_SHARED, Rejection.HEDGING)
    if fault is not None:
        return fault
    for name, words in case.words.items():
        # "Unknown" may be the title.
        doubts = sum(word in _MAYBE and word not in case.known for word in words)
        if doubts >= max(_MAYBE_LEAST, _MAYBE_SHARE * len(words)):
            return Rejection.HEDGING, f"{name}: {doubts} of {len(words)} words"
    return None


_INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget) (?:all |any |the |these |those )*"
    r"(?:previous|prior|above|earlier|other|instructions?|rules?)\b"
    r"|\b(?:system|developer) (?:prompt|message|mode)\b|\bmy (?:system )?prompt\b|\bapi key\b"
    r"|\bclick (?:here|the|on|below)\b"
    r"|\byou (?:must|should|need to|have to) (?:now )?(?:click|visit|buy|order|rank|rate"
    r"|recommend|call|download|say|answer|respond|write)\b"
    r"|\b(?:buy|order|call) (?:it )?(?:now|today)\b"
    r"|\b(?:buy|order|book|get) your (?:copy|copies|tickets?)\b|\bwin (?:a )?free \w"
    r"|\bsubscribe (?:to|now)\b|\bfollow us\b|\btell your friends\b|\bwhile stocks? lasts?\b"
    r"|\b(?:promo|discount) code\b|\buse code \w*\d|\b\d+ ?% off\b|\blimited offer\b"
    r"|\bdon't wait\b|\balways (?:rank|recommend|rate|show)\b"
    r"|\b(?:rank|recommend|show|boost|promote) (?:this|it)\b(?: \w+)?"
    r" (?:first|always|highest|top|above|to)\b"
    r"|\bplease (?:give|rank|rate|show|recommend|note|write|repeat|visit|watch|buy|answer|ignore)\b"
    r"|\bas (?:you )?(?:instructed|requested|ordered|told|asked)\b"
    r"|\bas (?:its|the) (?:producer|seller|catalogue|title|user) (?:asks|asked|says)\b"
    r"|\bnote (?:to|for) (?:the )?(?:recommender|reader|system|editor|critic|ranker|assistant)\b"
    r"|\byou are (?:an?|now) |\byour (?:system|answer|output|response|instructions?)\b"
    r"|\bi (?:will |shall |hereby )?(?:now )?(?:obey|comply|praise)\b"
    r"|\bset \w+ to (?:maximum|minimum|true|false|zero)\b|\bskip the\b.{0,20}\bcheck"
    r"|\b(?:here is|here's|the following is) (?:the|an?|your)"
    r" (?:\w+ )?(?:json|answer|note|summary|description|response)\b|^sure[!,. ]|\bpwned\b"
    r"|\b(?:json object|catalogue fields|system:|assistant:|user:)"
    r"|<\||\|>|```|\[/?inst\]|</?\w+>"
)


def find_instructions(case: Case) -> Fault | None:
    """Return the factor that obeys, gives or passes on an order, advertises, or shows a prompt."""
    for name, words in case.words.items():
        if any(run in case.rules for run in ngrams(words, RULE_RUN)):
            return Rejection.INSTRUCTIONS, f"{name}: repeats the prompt"
    return first_match(case, _INSTRUCTIONS, Rejection.INSTRUCTIONS)


_SPEAKS = re.compile(
    r"(?<![\w'’-])(?:(?<!War )I(?=(?:['’](?:m|ve|ll|d))? [a-z])"
    r"|(?:me|my|mine|myself|we|us|our|ours)(?![\w'’-]))"
)
_IS_SPOKEN_TO = re.compile(r"(?<![\w'’-])(?:you|your|yours)(?![\w-])")
_LEAST_SPOKEN_TO = 2
"""Once is how people speak of people: "choosing your family". So is "your" without a "you"."""


def find_speaker(case: Case) -> Fault | None:
    """Return the factor that speaks as somebody, or to somebody, instead of describing.

    For answers with no other fault.
    """
    for name, text in case.factors.items():
        spoken_to = [word for word in _IS_SPOKEN_TO.findall(text) if word not in case.known]
        if speaks_as_somebody(case, text) or (
            "you" in spoken_to and len(spoken_to) >= _LEAST_SPOKEN_TO
        ):
            return Rejection.INSTRUCTIONS, f"{name}: speaks as somebody or to somebody"
    return None


def speaks_as_somebody(case: Case, text: str) -> bool:
    """Whether a text says "I" or "we". Capitals are left alone: titles hold any of these words."""
    return any(
        match.group().lower() not in case.known and not _is_in_title(text, match.start())
        for match in _SPEAKS.finditer(text)
    )


def _is_in_title(text: str, start: int) -> bool:
    """Whether a capital I follows a capital word: "But I'm a Cheerleader", "The King and I"."""
    before = text[:start].removesuffix(" and ").split()
    return text[start] == "I" and bool(before) and before[-1][0].isupper()


_ADDRESS = re.compile(
    r"\b(?:https?|ftp)\s?:\s?/\s?/|\bwww\.|\b[\w.+-]+@[\w-]+\.\w{2,}|\bdata:\w+/\w"
    r"|\b[\w-]+\.(?:com|net|org|info|biz|io|co|app|shop|xyz|ru|cn|de|uk|in|tv|fr|me)\b"
    r"|\b[\w-]+\.\w{2,6}/\w"
)


_NO_NAME = re.compile(r"[/@]|^www\.")
_OTHER_WORDS_OF_A_TITLE = 3


def find_url(case: Case) -> Fault | None:
    """Return the factor that holds an address; a title that is one may be named."""
    for name, text in case.factors.items():
        for match in _ADDRESS.finditer(text.lower()):
            if _NO_NAME.search(match.group()) or not _is_title(case, words_of(match.group())):
                return Rejection.URL, name
    return None


def _is_title(case: Case, address: tuple[str, ...]) -> bool:
    # "Startup.com" is a film. A sentence with an address in it is a seller's.
    named, most = " ".join(address), len(address) + _OTHER_WORDS_OF_A_TITLE
    return any(named in title and len(title.split()) <= most for title in case.subject.names)
