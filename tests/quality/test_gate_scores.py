"""The gate on labelled answers: it must not get worse than it was measured, and refuse no good one.

The floors are what the half that no rule was set on gave, less one or two answers: see
`python -m tests.quality`. Where a change of the gate lifts a figure, lift its floor.
"""

import pytest

from deploy.demo.films import KNOWLEDGE_FILE, read_season
from schemas.entities import EntityKind
from schemas.reasons import Rejection
from tests.quality.labelled import Half, domain_of, read_answers
from tests.quality.scores import Judged, in_half, judge_all, recorded_answers, score_of
from workers.knowledge.quality import QualityGate
from workers.knowledge.writer import Answer

FLOORS = {
    # code: precision and recall at least; None is refusing at all
    None: (0.99, 0.90),
    Rejection.NOT_JSON: (1.0, 1.0),
    Rejection.TRUNCATED: (1.0, 1.0),
    Rejection.MISSING_FACTOR: (1.0, 1.0),
    Rejection.EMPTY_FACTOR: (1.0, 1.0),
    Rejection.TOO_SHORT: (0.94, 0.94),
    Rejection.TOO_LONG: (0.94, 0.76),
    Rejection.REFUSAL: (0.80, 0.80),
    Rejection.HEDGING: (0.80, 0.70),
    Rejection.REPETITION: (0.85, 0.95),
    Rejection.ECHO: (0.80, 0.93),
    Rejection.INSTRUCTIONS: (0.46, 0.75),
    Rejection.URL: (0.75, 0.75),
    Rejection.WRONG_LANGUAGE: (0.85, 0.50),
    Rejection.WRONG_ENTITY: (0.95, 0.46),
    Rejection.GARBLED: (0.90, 0.84),
    Rejection.GENERIC: (0.85, 0.36),
}


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return judge_all()


def test_there_are_enough_answers_of_every_source_in_both_halves():
    rows = read_answers()
    ids = {row.id for row in rows}

    assert len(rows) == len(ids) >= 300
    for half in Half:
        members = [row for row in rows if row.half is half]
        assert len(members) > 0.4 * len(rows)
        assert {row.source for row in members} == {row.source for row in rows}
        assert sum(not row.labels for row in members) >= 50


@pytest.mark.parametrize("code", FLOORS)
def test_the_gate_is_as_good_on_answers_it_was_not_made_for_as_it_was(judged, code):
    score = score_of(in_half(judged, Half.HELD_OUT), code)
    precision, recall = FLOORS[code]

    assert score.labelled > 0
    assert score.precision >= precision
    assert score.recall >= recall


def test_no_good_answer_of_the_half_that_rules_are_set_on_is_refused(judged):
    good = [one for one in in_half(judged, Half.TUNE) if not one.row.labels]

    assert [one.row.id for one in good if one.found] == []


def test_every_recorded_answer_of_the_demo_passes():
    recorded, gate = recorded_answers(KNOWLEDGE_FILE), QualityGate(domain_of("movies"))

    refused = [
        film.item_id
        for film in read_season().films
        if gate.judge(Answer(recorded[film.item_id], 0, 0, ""), film.fields, EntityKind.ITEM)
    ]

    assert len(recorded) == 1_613
    assert refused == []
