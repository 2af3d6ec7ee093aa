"""Fingerprints: blake2b-128 of canonical JSON. They say if work is needed, never what is newer."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TypeAlias

import orjson

Json: TypeAlias = "str | int | float | bool | None | Sequence[Json] | Mapping[str, Json]"

_DIGEST_BYTES = 16


def canonical_json(value: object) -> bytes:
    """Return the one spelling of `value`: sorted keys, no white space, UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(data: bytes) -> str:
    """Return blake2b-128 of `data` as 32 hexadecimal digits."""
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def content_fingerprint(fields: Mapping[str, Json]) -> str:
    """Return the fingerprint of an item's semantically relevant fields."""
    return digest(canonical_json(fields))


def knowledge_fingerprint(content: str, prompt_id: str, model_id: str) -> str:
    """Return the fingerprint of what a language model was asked: content, prompt and model."""
    return digest(canonical_json([content, prompt_id, model_id]))


def text_fingerprint(text: str) -> str:
    """Return the fingerprint of one part's text."""
    return digest(text.encode())
