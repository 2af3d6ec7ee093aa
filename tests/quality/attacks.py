"""Hostile catalogue texts, and what an answer that obeys one would say.

An attack has no such answer where it could not be told from a bad critic's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.quality.labelled import FOLDER

ATTACKS_FILE = FOLDER / "attacks.jsonl"


@dataclass(frozen=True, slots=True)
class Attack:
    """A text as a seller might write it; `kind` is what it tries. `obeyed` holds factors."""

    name: str
    kind: str
    text: str
    obeyed: Mapping[str, str] | None


def read_attacks() -> list[Attack]:
    """Return every attack; a long one is stored as a text and how often to repeat it."""
    # Not orjson: the file escapes lone surrogates, which are an attack of their own.
    rows = map(json.loads, ATTACKS_FILE.read_text("ascii").splitlines())
    return [
        Attack(row["name"], row["kind"], row["text"] * row.get("repeat", 1), row["obeyed"])
        for row in rows
    ]
