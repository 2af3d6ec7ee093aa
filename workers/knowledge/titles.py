"""Items as prompts list them: an entry an item, a line an entry, and never more than fits. Pure.

A request about a user or a group lists items by entries of `title`, and `year` and `genres` where
they are known, beside the item's id, which no prompt tells. Owns how an entry is made of catalogue
fields, which entries count, and how one is told. Titles are as hostile as any catalogue text.
"""

from collections.abc import Mapping, Sequence

from schemas.fingerprints import Json
from workers.knowledge.prompts import SHORTEST_USEFUL_BYTES, cut, defused, spoken

ITEM = "item"
"""The field of an entry that holds the item's id; never part of a prompt."""

_TOLD = ("year", "genres")
_GENRE_FIELDS = ("genres", "genre", "categories", "category")
_MAX_GENRES = 3
_MAX_CHARS = 160
_MAX_TITLE_BYTES = 160
_MAX_DETAILS_BYTES = 80


def entry_of(item: str, fields: Mapping[str, Json]) -> dict[str, Json] | None:
    """Return the id, title, year and genres of an item; None without a title that can be told."""
    title = fields.get("title")
    if not isinstance(title, str) or not defused(title):
        return None
    entry: dict[str, Json] = {ITEM: item, "title": title.strip()[:_MAX_CHARS]}
    year = fields.get("year")
    if isinstance(year, int | str) and not isinstance(year, bool):
        entry["year"] = year if isinstance(year, int) else year[:_MAX_CHARS]
    genres = next((_genres(fields[name]) for name in _GENRE_FIELDS if name in fields), [])
    if genres:
        entry["genres"] = genres
    return entry


def entries(listed: Json) -> list[Mapping[str, Json]]:
    """Return the entries of a list that have a title; the rest of a request may be anything."""
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return []
    return [
        entry
        for entry in listed
        if isinstance(entry, Mapping)
        and isinstance(title := entry.get("title"), str)
        and defused(title)
    ]


def title_line(entry: Mapping[str, Json]) -> str:
    """Return what a prompt says of an entry, on one line: `- Heat (1995; Crime, Drama)`."""
    title = cut(defused(str(entry["title"])), _MAX_TITLE_BYTES)
    known = filter(None, (spoken(entry.get(name)) for name in _TOLD))
    details = cut("; ".join(known), _MAX_DETAILS_BYTES)
    return f"- {title}" + (f" ({details})" if details else "")


def first_within(lines: Sequence[str], most_bytes: int) -> list[str]:
    """Return as many of the first lines as fit into so many bytes, line ends included."""
    left = most_bytes
    kept: list[str] = []
    for line in lines:
        left -= len(line.encode()) + 1
        if left < 0:
            break
        kept.append(line)
        if left < SHORTEST_USEFUL_BYTES:
            break
    return kept


def _genres(value: Json) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence):
        return []
    return [text[:_MAX_CHARS] for text in listed if isinstance(text, str) and text][:_MAX_GENRES]
