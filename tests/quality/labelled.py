"""The labelled answers: reading them, the halves they are split in, and what the gate says of each.

The files beside this module are the data; `rubric.md` says how they were labelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from hashlib import blake2b
from pathlib import Path

import orjson

from schemas.entities import EntityKind
from schemas.fingerprints import Json
from schemas.reasons import Rejection
from streams.settings import DEFAULT_FACTORS
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import Domain
from workers.knowledge.quality import QualityGate
from workers.knowledge.vllm_writer import factors_in
from workers.knowledge.writer import Answer, Rejected

FOLDER = Path(__file__).parent
ANSWERS_FILE = FOLDER / "answers.jsonl"


class Half(StrEnum):
    """Rules are set on one half of the rows and measured on the other."""

    TUNE = "tune"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer and what a careful reader says of it; no label means that it may be used."""

    id: str
    source: str
    domain: Domain
    kind: EntityKind
    fields: Mapping[str, Json]
    raw: str
    is_cut_off: bool
    labels: frozenset[Rejection]

    @property
    def half(self) -> Half:
        """The half it belongs to: a hash of the id, so that rows can be added to the file."""
        byte = blake2b(self.id.encode(), digest_size=1).digest()[0]
        return Half.TUNE if byte % 2 == 0 else Half.HELD_OUT


def read_answers() -> list[Labelled]:
    """Return every row, in the order of the file."""
    return [_row(line) for line in ANSWERS_FILE.read_bytes().splitlines()]


@cache
def domain_of(name: str, max_factor_chars: int = 400) -> Domain:
    """Return a domain as the lanes have it by default, but for the bound on a factor."""
    return load_domain(
        name, factors=DEFAULT_FACTORS, max_factor_chars=max_factor_chars, max_tokens=400
    )


def found_in(row: Labelled, gate: QualityGate) -> list[Rejection]:
    """Return all that writer and gate find wrong with the answer, what they would tell first."""
    if row.is_cut_off:
        return [Rejection.TRUNCATED]
    try:
        factors = factors_in(row.raw, row.domain.factor_names)
    except Rejected as rejected:
        return [rejected.rejection]
    answer = Answer(factors, 0, 0, row.raw)
    return [code for code, _ in gate.faults(answer, row.fields, row.kind)]


def _row(line: bytes) -> Labelled:
    row = orjson.loads(line)
    return Labelled(
        id=row["id"],
        source=row["source"],
        domain=domain_of(row["domain"], row.get("max_factor_chars", 400)),
        kind=EntityKind(row["kind"]),
        fields=row["fields"],
        raw=row["raw"],
        is_cut_off=row.get("ending") == "length",
        labels=frozenset(Rejection(label) for label in row["labels"] if label != "ok"),
    )
