"""Stable reason codes: why a record became a dead letter, or an answer was rejected.

Codes are part of the public contract: operators alert on them and replay by them. Never rename
one; add a new one.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record could not be used (dead letters)."""

    NOT_JSON = "not_json"  # the value does not parse as JSON
    NOT_FINITE = "not_finite"  # NaN or Infinity where JSON allows none
    INVALID_UNICODE = "invalid_unicode"  # bytes that are not UTF-8, or lone surrogates
    NOT_AN_OBJECT = "not_an_object"  # JSON, but not an object
    NULL_VALUE = "null_value"  # a tombstone on a topic that has none
    NULL_KEY = "null_key"  # the record has no key, so ordering per entity is lost
    WRONG_KEY = "wrong_key"  # the key does not name the entity in the value
    UNKNOWN_TYPE = "unknown_type"  # no such event type
    TYPE_MISMATCH = "type_mismatch"  # the ce_type header contradicts the body
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"  # a field has the wrong JSON type
    BAD_VERSION = "bad_version"  # not an integer in 0 .. 2^63-1
    INVALID_ID = "invalid_id"  # empty, too long, or with characters that keys cannot hold
    EMPTY_TITLE = "empty_title"
    FUTURE_TIME = "future_time"  # occurred_at is further ahead than clocks drift
    TOO_LARGE = "too_large"  # over the record size limit; only its head is kept
    FAILS_ALONE = "fails_alone"  # fails again and again while its neighbours succeed
    REFUSED = "refused"  # a dependency said that this very request can never work
    UNKNOWN_ACTION = "unknown_action"  # a user did something that the settings give no weight
    UNREADABLE_HISTORY = "unreadable_history"  # a history of ours that does not decode
    UNREADABLE_KNOWLEDGE = "unreadable_knowledge"  # a record of ours that does not decode


class Rejection(StrEnum):
    """Why the quality gate refused a language model's answer (an outcome, not a dead letter)."""

    NOT_JSON = "not_json"
    TRUNCATED = "truncated"
    MISSING_FACTOR = "missing_factor"
    EMPTY_FACTOR = "empty_factor"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    REFUSAL = "refusal"
    HEDGING = "hedging"
    REPETITION = "repetition"
    ECHO = "echo"
    INSTRUCTIONS = "instructions"
    URL = "url"
    WRONG_LANGUAGE = "wrong_language"
    WRONG_ENTITY = "wrong_entity"
    GARBLED = "garbled"  # markup, glued words, symbols: not the words of a language
    GENERIC = "generic"  # as true of most others in the catalogue
    NO_ANSWER = "no_answer"  # the recorded writer has no answer for this entity
