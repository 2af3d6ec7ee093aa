"""Precision and recall of the gate on the labelled answers: over all, and reason by reason."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson

from deploy.demo.films import KNOWLEDGE_FILE, read_season
from schemas.entities import EntityKind
from schemas.fingerprints import Json
from schemas.reasons import Rejection
from tests.quality.labelled import Half, Labelled, found_in, read_answers
from workers.knowledge.quality import QualityGate
from workers.knowledge.writer import Answer


@dataclass(frozen=True, slots=True)
class Judged:
    """A labelled answer and the codes that the gate finds in it, the one it tells first."""

    row: Labelled
    found: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How often a finding is right: counts of answers.

    `labelled` have the fault, `found` are said to have it, `right` are both. Of those that have it,
    `refused` are refused for whatever reason.
    """

    labelled: int
    found: int
    right: int
    refused: int

    @property
    def precision(self) -> float:
        """The share of findings that are right; 1 without any."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """The share of faults that are found; 1 without any."""
        return self.right / self.labelled if self.labelled else 1.0


def judge_all() -> list[Judged]:
    """Return what the gates of a lane at work say of every answer.

    As in a lane there is one gate a domain (and bound on a factor), which has seen films before and
    sees the answers come mixed: in the order of a hash, each once.
    """
    rows = sorted(read_answers(), key=lambda row: blake2b(row.id.encode()).digest())
    gates = {row.domain: QualityGate(row.domain) for row in rows}
    titles = {row.fields.get("title") for row in rows}
    for domain, gate in gates.items():
        if domain.name == "movies":
            _let_films_pass(gate, titles)
    return [Judged(row, tuple(found_in(row, gates[row.domain]))) for row in rows]


def recorded_answers(file: Path) -> dict[str, dict[str, str]]:
    """Return the factors of each recorded answer by item id."""
    rows = map(orjson.loads, file.read_bytes().splitlines())
    return {row["item_id"]: row["knowledge"] for row in rows}


def _let_films_pass(gate: QualityGate, but: Container[Json]) -> None:
    recorded = recorded_answers(KNOWLEDGE_FILE)
    for film in read_season().films[::2]:
        if film.title not in but:
            gate.judge(Answer(recorded[film.item_id], 0, 0, ""), film.fields, EntityKind.ITEM)


def in_half(judged: Sequence[Judged], half: Half) -> list[Judged]:
    """Return the answers of one half."""
    return [one for one in judged if one.row.half is half]


def score_of(judged: Sequence[Judged], code: Rejection | None) -> Score:
    """Return the score for one code; for None that of refusing at all."""
    if code is None:
        labelled = [one for one in judged if one.row.labels]
        found = [one for one in judged if one.found]
    else:
        labelled = [one for one in judged if code in one.row.labels]
        found = [one for one in judged if code in one.found]
    right = [one for one in found if one in labelled]
    return Score(len(labelled), len(found), len(right), sum(bool(one.found) for one in labelled))
