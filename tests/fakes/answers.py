"""Deterministic factor texts for fakes: they name their subject and pass the quality gate."""

import re
from hashlib import blake2b

_WORDS = (
    "amber anchor aspen basalt beacon birch bramble canyon cedar chalk cinder clover cobalt coral"
    " cotton crater cypress dune ember fern fjord flint garnet ginger glacier granite harbour hazel"
    " heather indigo iris ivory jasper juniper kelp lantern lattice laurel lichen linen lotus maple"
    " marble meadow mesa mica mint moss nectar oasis ochre olive onyx opal orchard pebble pine"
    " poplar prairie quartz quill raven reef ribbon russet saffron sage sable sienna slate spruce"
    " steppe sumac tallow teal thistle timber tundra umber velvet walnut willow wren yarrow zinc"
).split()

_VERSION = re.compile(r"\bas of version (\d+)\b")


def factor_text(factor: str, subject: str) -> str:
    """Return e.g. "genre of item:42 as of version 17, teal fern onyx raven moss mint"."""
    seed = blake2b(f"{factor}|{subject}".encode(), digest_size=12).digest()
    words = " ".join(_WORDS[byte % len(_WORDS)] for byte in dict.fromkeys(seed))
    # A short answer's key is no word: "genre_3".
    return f"{factor.replace('_', ' ')} of {subject}, {words}"


def version_in(text: str) -> int:
    """Return the version that a text of the VersionWriter was asked for; raises ValueError."""
    found = _VERSION.search(text)
    if found is None:
        raise ValueError(f"no version in {text!r}")
    return int(found.group(1))
