"""What the gate of preference knowledge saves, and what that costs: calls against rank quality.

`python -m deploy.demo.gate_savings` replays the demo's ratings through the very gate, prompt fields
and quality gate of the lanes, in memory, one event a batch and in the order they were given. Each
regime says after which ratings a user is written about. Whenever a user likes a new film, the film
is ranked by cosine to the user's vector, made from what was last written about them before that
rating: the cold-start protocol of the demo (workers/evaluation/cold_start.py) on a sample of users.

What is written comes from the stand-in writer, which puts recorded texts of the three films liked
most together. So the figures tell regimes apart; they say nothing of what a language model would
make of the same titles. How long an answer takes is left out: it counts from its event on, and that
of the nightly regime from midnight (UTC). Texts are encoded once and kept in a file.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import orjson

from deploy.demo.films import KNOWLEDGE_FILE, Rating, Season, read_season
from deploy.demo.gate_regimes import Array, Call, Calls, Life, Pen, lives_of, regimes
from deploy.demo.plans import HOUR_MS
from schemas.entities import EntityKey
from schemas.fingerprints import text_fingerprint
from schemas.knowledge import Content, Document, Factors, Provenance
from workers.adaptors.parts_pca import PartsPca, fit_parts_pca
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.representation import Representer
from workers.encoding.text_encoder import TextEncoder
from workers.evaluation.cold_start import (
    ColdStartFigures,
    RatingTable,
    RegimeVectors,
    Rules,
    UserVectors,
    cold_start,
    questions,
)

SEED = 1
RULES = Rules(leave_out_rated=False)
MEAN = "no call: mean of the history"
NOTES = (
    "calls, users: of all users, and how many of them were written about.",
    "+-: standard error of HR@100, as if the likes of one user were independent.",
    "no text: likes of users about whom nothing was written by then; they count as misses.",
)
_ENCODED_AT_ONCE = 256


class KeptEncoder:
    """The deployment's encoder, with all it ever encoded in a file."""

    def __init__(self, encoder: TextEncoder, path: Path) -> None:
        self._encoder = encoder
        self._path = path
        self._known: dict[str, npt.NDArray[np.float16]] = {}
        if path.exists():
            with np.load(path) as kept:
                if str(kept["encoder_id"]) == encoder.encoder_id:
                    self._known = dict(zip(kept["keys"].tolist(), kept["values"], strict=True))

    @property
    def encoder_id(self) -> str:
        """The encoder's id."""
        return self._encoder.encoder_id

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._encoder.dim

    def encode(self, texts: Sequence[str]) -> Array:
        """Return (n, dim) float32 of float16 precision."""
        keys = [text_fingerprint(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        waiting = list(new.items())
        for start in range(0, len(waiting), _ENCODED_AT_ONCE):
            chunk = waiting[start : start + _ENCODED_AT_ONCE]
            vectors = self._encoder.encode([text for _, text in chunk]).astype(np.float16)
            self._known.update(zip((key for key, _ in chunk), vectors, strict=True))
            told(f"encoded {start + len(chunk)} of {len(waiting)} texts")
            self._keep()
        return np.stack([self._known[key] for key in keys]).astype(np.float32)

    def _keep(self) -> None:
        aside = self._path.with_suffix(".new.npz")
        np.savez(
            aside,
            encoder_id=self.encoder_id,
            keys=np.array(list(self._known)),
            values=np.stack(list(self._known.values())),
        )
        aside.replace(self._path)


def told(what: str) -> None:
    """Say how far it is, beside the table."""
    sys.stderr.write(f"{what}\n")


@dataclass(frozen=True, slots=True)
class Films:
    """The films' vectors (dim,), the space they lie in, and who makes parts."""

    vectors: Mapping[str, Array]
    space: PartsPca
    representer: Representer


def encoded_films(season: Season, encoder: KeptEncoder) -> Films:
    """Return all films with their recorded knowledge; the space is fitted on the back catalogue."""
    knowledge = {
        row["item_id"]: row["knowledge"]
        for row in map(orjson.loads, KNOWLEDGE_FILE.read_bytes().splitlines())
    }
    provenance = Provenance("recorded-answers", "", "")
    documents = {
        film.item_id: Document(
            content=Content(1, film.fields, "", 0),
            individual=Factors(1, 0, knowledge[film.item_id], provenance, 0),
        )
        for film in season.films
    }
    representer = Representer(encoder)
    values, mask, _ = representer.represent(
        [(None, None, representer.texts(document)) for document in documents.values()]
    )
    new = season.new_films()
    old = np.array([item not in new for item in documents])
    space = fit_parts_pca(
        values[old],
        mask[old],
        name="parts-pca",
        encoder_id=encoder.encoder_id,
        part_names=representer.parts,
    )
    vectors = dict(zip(documents, space.apply(values, mask), strict=True))
    return Films(vectors, space, representer)


def sampled_users(asked: Iterable[tuple[str, str]], queries: int) -> frozenset[str]:
    """Return users drawn from a seed until they have so many queries together."""
    count = Counter(user for user, _ in asked)
    drawn: list[str] = sorted(count)
    Random(SEED).shuffle(drawn)
    chosen: list[str] = []
    while drawn and sum(count[user] for user in chosen) < queries:
        chosen.append(drawn.pop())
    return frozenset(chosen)


class Scribe:
    """Finds what was last written about a user before a moment, each text written once."""

    def __init__(self, lives: Mapping[str, Life], pen: Pen) -> None:
        self._lives = lives
        self._pen = pen
        self._written: dict[tuple[str, int], Document | None] = {}

    def last_before(self, user: str, at_ms: int, calls: Sequence[Call]) -> Document | None:
        """Return the last accepted text whose time came before `at_ms`."""
        for available_ms, index in reversed(calls):
            if available_ms < at_ms:
                key = user, index
                if key not in self._written:
                    history = self._lives[user].history(index, self._pen.settings.max_events)
                    self._written[key] = self._pen.document(history)
                if (document := self._written[key]) is not None:
                    return document
        return None


def user_vectors(
    documents: Mapping[tuple[str, str], Document], representer: Representer, space: PartsPca
) -> UserVectors:
    """Return the vectors (d,) made from texts, by query."""
    if not documents:
        return UserVectors({}, {})
    rows = [representer.texts(document) for document in documents.values()]
    values, mask, _ = representer.represent([(None, None, texts) for texts in rows])
    return UserVectors(dict(zip(documents, space.apply(values, mask), strict=True)), {})


def measured(
    season: Season, lives: Mapping[str, Life], queries: int, pen: Pen, films: Films
) -> tuple[dict[str, Calls], dict[str, ColdStartFigures], int]:
    """Return every regime's calls (of all users) and figures (of the sample), and its users."""
    released = season.first_rated_ms()
    new = season.new_films()
    asked = questions(_table(season.ratings), new, RULES).queries
    users = sampled_users(asked, queries)
    asked = frozenset((user, item) for user, item in asked if user in users)
    at_ms = {
        (user, event.item): event.at_ms
        for user in users
        for event in reversed(lives[user].events)  # the first rating counts
    }
    of_regimes = regimes(lives, pen, told)
    scribe = Scribe(lives, pen)
    read: dict[str, UserVectors] = {MEAN: UserVectors(_means(asked, at_ms, lives), {})}
    for name, calls in of_regimes.items():
        documents = {
            (user, item): document
            for user, item in sorted(asked)
            if (document := scribe.last_before(user, at_ms[user, item], calls.get(user, ())))
        }
        read[name] = user_vectors(documents, films.representer, films.space)
    ranked = RegimeVectors(
        keys=list(films.vectors),
        values=np.stack(list(films.vectors.values())),
        available_at_ms=np.array(
            [released[item] - HOUR_MS if item in new else 0 for item in films.vectors], np.int64
        ),
    )
    theirs = [rating for rating in season.ratings if rating.user_id in users]
    figures = cold_start(_table(theirs), new, dict.fromkeys(read, ranked), RULES, read)
    return of_regimes, figures, len(users)


def _means(
    asked: Iterable[tuple[str, str]],
    at_ms: Mapping[tuple[str, str], int],
    lives: Mapping[str, Life],
) -> dict[tuple[str, str], Array]:
    found: dict[tuple[str, str], Array] = {}
    for user, item in asked:
        life = lives[user]
        before = sum(event.at_ms < at_ms[user, item] for event in life.events)
        if before:
            found[user, item] = life.vectors[before - 1]
    return found


def _table(ratings: Sequence[Rating]) -> RatingTable:
    return RatingTable(
        user=np.array([rating.user_id for rating in ratings]),
        item=np.array([rating.item_id for rating in ratings]),
        rating=np.array([rating.rating for rating in ratings]),
        at_ms=np.array([rating.at_ms for rating in ratings], np.int64),
    )


def table(
    of_regimes: Mapping[str, Calls], figures: Mapping[str, ColdStartFigures], events: int
) -> list[str]:
    """Return the lines of the table, one a regime."""
    heads = ("calls", "of events", "users", "HR@100", "+-", "percentile", "no text")
    lines = [f"{'regime':28}" + "".join(f"{head:>11}" for head in heads)]
    for name, one in figures.items():
        calls = [len(of_user) for of_user in of_regimes.get(name, {}).values()]
        hit, behind, missed = one.hr100 or 0.0, one.percentile or 0.0, one.missed or 0.0
        error = (hit * (1 - hit) / max(one.n, 1)) ** 0.5
        cells = (
            str(sum(calls)),
            f"{sum(calls) / events:.1%}",
            str(sum(map(bool, calls))),
            f"{hit:.3f}",
            f"{error:.3f}",
            f"{behind:.3f}",
            f"{missed:.1%}",
        )
        lines.append(f"{name:28}" + "".join(f"{cell:>11}" for cell in cells))
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the gate saves, and what that costs.")
    parser.add_argument("--queries", type=int, default=500, help="likes of new films to rank")
    parser.add_argument("--films", type=int, default=10_000, help="the most rated films only")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "freshet-gate-savings.npz",
        help="file of encoded texts: a second run needs no encoder",
    )
    options = parser.parse_args()
    started = time.monotonic()
    season = read_season().smaller(options.films)
    encoder = KeptEncoder(load_encoder(EncoderChoice(threads=options.threads)), options.cache)
    films = encoded_films(season, encoder)
    pen = Pen({EntityKey.item(film.item_id): film.fields for film in season.films})
    lives = lives_of(season.ratings, films.vectors, films.space.space, pen)
    of_regimes, figures, users = measured(season, lives, options.queries, pen, films)
    refused = dict(pen.refused) or "none"
    what = f"{len(season.ratings)} ratings of {len(season.films)} films by {len(lives)} users"
    asked = f"{figures[MEAN].n} likes of new films by {users} of them"
    lines = [
        f"{what}; quality: {asked}",
        *table(of_regimes, figures, len(season.ratings)),
        *NOTES,
        f"Refused by the quality gate, or without an answer: {refused}.",
        f"{time.monotonic() - started:.0f} s",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
