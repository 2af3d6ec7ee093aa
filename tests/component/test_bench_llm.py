"""What the llm section of the bench is made of, against a server on the loopback."""

import itertools

import pytest

from schemas.knowledge import RequestKind
from tests.bench.films import knowledge
from tests.bench.llm_traffic import subjects
from tests.bench.llm_writer import CALLS_FILE, StandInWriter
from tests.fakes.vllm_server import Behaviour, FakeVllmServer
from workers.knowledge.load_domain import load_domain
from workers.knowledge.quality import check
from workers.knowledge.writer import Answer

DOMAIN = load_domain("movies", factors=("people", "genre"), max_factor_chars=120, max_tokens=80)


@pytest.mark.parametrize("behaviour", [Behaviour.ANSWER, Behaviour.NOT_JSON])
async def test_the_measured_lane_s_writer_calls_and_answers_what_was_recorded(
    behaviour, monkeypatch, tmp_path
):
    async with FakeVllmServer() as server:
        server.will(behaviour)
        monkeypatch.setenv("FRESHET_KNOWLEDGE__VLLM_URL", server.url)
        monkeypatch.setenv(CALLS_FILE, str(tmp_path / "calls"))
        subject = next(subjects("llm", DOMAIN, first=3))
        writer = StandInWriter(model="a-model")

        answer = await writer.write(
            subject.prompt(DOMAIN), subject.request(RequestKind.NEW), priority=0
        )
        await writer.aclose()

    number = int(subject.entity.id.removeprefix("llm-"))
    assert number >= 3
    assert answer.factors == knowledge()[number]
    assert len(server.requests) == 1
    assert float((tmp_path / "calls").read_text()) > 0


def test_only_films_whose_recorded_answer_passes_the_gate_are_asked_about():
    found = list(itertools.islice(subjects("llm", DOMAIN), 100))

    assert len({subject.entity for subject in found}) == 100
    for subject in found:
        answer = Answer(knowledge()[int(subject.entity.id.removeprefix("llm-"))], 0, 0, "")
        assert check(answer, subject.fields, DOMAIN) is None
