"""The demo's data: films, their ratings and the recorded answers, as files beside this module.

From the MovieTweetings data set (MIT licence, `data/LICENSE`): films with their people, and ratings
0-10 from 28 February to 1 September 2013. Owns reading them; refuses to know what is made of them.
"""

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from schemas.fingerprints import Json

DATA_DIR = Path(__file__).parent / "data"
CATALOG_FILE = DATA_DIR / "catalog.jsonl"
KNOWLEDGE_FILE = DATA_DIR / "knowledge.jsonl"
RATINGS_FILE = DATA_DIR / "ratings.csv.gz"

SUMMER_STARTS_MS = round(datetime(2013, 6, 4, tzinfo=UTC).timestamp() * 1000)
"""Films first rated before this moment are the back catalogue, the others are new releases."""


@dataclass(frozen=True, slots=True)
class Film:
    """A film as the catalogue has it; `fields` hold title, year, genres, directors and actors."""

    item_id: str
    fields: Mapping[str, Json]

    @property
    def title(self) -> str:
        """The display title."""
        return str(self.fields["title"])

    @property
    def actors(self) -> tuple[str, ...]:
        """The names of its cast."""
        actors = self.fields.get("actors")
        return tuple(map(str, actors)) if isinstance(actors, list) else ()


@dataclass(frozen=True, slots=True)
class Rating:
    """One rating of 0-10; `at_ms` is when it was given."""

    at_ms: int
    user_id: str
    item_id: str
    rating: int


@dataclass(frozen=True, slots=True)
class Season:
    """Films and their ratings in time order; every film has at least one."""

    films: tuple[Film, ...]
    ratings: tuple[Rating, ...]

    def first_rated_ms(self) -> dict[str, int]:
        """Return when each film was first rated."""
        first: dict[str, int] = {}
        for rating in self.ratings:
            first.setdefault(rating.item_id, rating.at_ms)
        return first

    def last_rated_ms(self) -> dict[str, int]:
        """Return when each film was last rated."""
        return {rating.item_id: rating.at_ms for rating in self.ratings}

    def new_films(self) -> frozenset[str]:
        """Return the ids of the films that were first rated in the summer."""
        return frozenset(
            item_id for item_id, at_ms in self.first_rated_ms().items() if at_ms >= SUMMER_STARTS_MS
        )

    def smaller(self, count: int) -> "Season":
        """Return the season with its `count` most rated films, an eighth of them new releases."""
        if count >= len(self.films):
            return self
        new = self.new_films()
        counts = Counter(rating.item_id for rating in self.ratings)
        by_fame = sorted(self.films, key=lambda film: (-counts[film.item_id], film.item_id))
        releases = [film for film in by_fame if film.item_id in new][: max(1, count // 8)]
        older = [film for film in by_fame if film.item_id not in new][: count - len(releases)]
        kept = {film.item_id for film in (*releases, *older)}
        return Season(
            tuple(film for film in self.films if film.item_id in kept),
            tuple(rating for rating in self.ratings if rating.item_id in kept),
        )


def read_season(catalog: Path = CATALOG_FILE, ratings: Path = RATINGS_FILE) -> Season:
    """Return the films of the catalogue that were ever rated, and all their ratings."""
    films = [_film(line) for line in catalog.read_bytes().splitlines()]
    with gzip.open(ratings, "rt", encoding="utf-8", newline="") as lines:
        given = _ratings(csv.DictReader(lines))
    rated = {rating.item_id for rating in given}
    known = {film.item_id for film in films}
    return Season(
        tuple(film for film in films if film.item_id in rated),
        tuple(rating for rating in given if rating.item_id in known),
    )


def _film(line: bytes) -> Film:
    fields = orjson.loads(line)
    return Film(fields.pop("item_id"), fields)


def _ratings(rows: Iterable[Mapping[str, str]]) -> list[Rating]:
    given = [
        Rating(int(row["timestamp"]) * 1000, row["user_id"], row["item_id"], int(row["rating"]))
        for row in rows
    ]
    # The file is nearly in time order; ratings of one second may be in any.
    return sorted(given, key=lambda rating: rating.at_ms)
