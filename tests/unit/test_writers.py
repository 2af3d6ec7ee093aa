"""Writers that need no server: the recorded one, the fake one, and how one is chosen."""

import asyncio

import pytest

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError, Transient
from schemas.knowledge import KnowledgeRequest, RequestKind
from schemas.reasons import Rejection
from tests.fakes.answers import version_in
from tests.fakes.version_writer import VersionWriter
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import item_prompt
from workers.knowledge.quality import QualityGate
from workers.knowledge.recorded_writer import RecordedWriter
from workers.knowledge.select_writer import select_writer
from workers.knowledge.vllm_writer import VllmServer, VllmWriter
from workers.knowledge.writer import Rejected, Writer

DOMAIN = load_domain("movies", factors=("genre", "mood"), max_factor_chars=400, max_tokens=400)
FIELDS = {"title": "The Lamp"}


def request(id_: str = "42", version: int = 17) -> KnowledgeRequest:
    key = EntityKey.item(id_)
    return KnowledgeRequest(key, RequestKind.NEW, version, FIELDS, "f" * 32, 1_000, 2_000)


async def ask(writer: Writer, wanted: KnowledgeRequest):
    prompt = item_prompt(DOMAIN, wanted.entity, FIELDS)
    return await writer.write(prompt, wanted, priority=0)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "knowledge.jsonl"
    path.write_text(
        '{"item_id": "42", "knowledge": {"genre": "sea drama", "mood": "grey", "plot": "x"}}\n\n'
        '{"item_id": "43", "knowledge": {"genre": "farce"}}\n'
    )
    return path


async def test_the_recorded_writer_answers_the_asked_factors(recording):
    writer = RecordedWriter.load(recording, model="recorded-answers")

    answer = await ask(writer, request())

    assert answer.factors == {"genre": "sea drama", "mood": "grey"}
    assert writer.model == "recorded-answers"


async def test_the_recorded_writer_has_no_answer_for_an_unknown_item(recording):
    writer = RecordedWriter.load(recording, model="recorded-answers")

    with pytest.raises(Rejected) as raised:
        await ask(writer, request("44"))

    assert raised.value.rejection is Rejection.NO_ANSWER


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"item_id": "1"}', '{"item_id": "1", "knowledge": 3}']
)
def test_a_line_that_is_no_recording_is_named(tmp_path, line):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"item_id": "42", "knowledge": {}}\n' + line + "\n")

    with pytest.raises(ConfigurationError, match="line 2"):
        RecordedWriter.load(path, model="m")


def selected(name: str, recorded_file=None) -> Writer:
    server = VllmServer("http://127.0.0.1:8000")
    return select_writer(name, model="a-model", recorded_file=recorded_file, server=server)


async def test_writers_are_chosen_by_name(recording):
    chosen = {
        "recorded": selected("recorded", recording),
        "vllm": selected("vllm"),
        "tests.fakes.version_writer:VersionWriter": selected(
            "tests.fakes.version_writer:VersionWriter"
        ),
    }

    assert [type(writer) for writer in chosen.values()] == [
        RecordedWriter,
        VllmWriter,
        VersionWriter,
    ]
    assert {writer.model for writer in chosen.values()} == {"a-model"}
    for writer in chosen.values():
        await writer.aclose()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("recorded", "needs a file"),
        ("gpt", "not recorded, vllm"),
        ("no.such.module:Writer", "no.such"),
        ("tests.fakes.version_writer:Missing", "has no class"),
        ("tests.unit.test_writers:NotAWriter", "has no model, write and aclose"),
    ],
)
def test_a_writer_that_cannot_be_chosen_says_why(name, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        selected(name)


class NotAWriter:
    def __init__(self, *, model: str) -> None:
        self.name = model


async def test_the_version_writer_says_which_version_it_was_asked_for():
    writer = VersionWriter()

    answer, again = await ask(writer, request()), await ask(writer, request())
    newer = await ask(writer, request(version=18))

    assert answer == again
    assert {version_in(text) for text in answer.factors.values()} == {17}
    assert {version_in(text) for text in newer.factors.values()} == {18}
    assert QualityGate(DOMAIN).judge(answer, FIELDS) is None


async def test_the_version_writer_fails_as_scripted_and_holds_calls_at_its_gate(tmp_path):
    writer = VersionWriter(failures=[Transient("vllm", "scripted")])
    with pytest.raises(Transient, match="scripted"):
        await ask(writer, request())

    writer.gate.clear()
    calls = asyncio.gather(ask(writer, request("1")), ask(writer, request("2")))
    await asyncio.sleep(0)
    held = writer.in_flight
    writer.gate.set()
    await calls

    assert (held, writer.in_flight, writer.most_in_flight) == (2, 0, 2)


async def test_the_version_writer_of_another_process_is_scripted_by_its_environment(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("VERSION_WRITER_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("VERSION_WRITER_MOOD", str(tmp_path / "mood"))
    writer = VersionWriter()

    await ask(writer, request())
    (tmp_path / "mood").write_text("down")
    with pytest.raises(Transient, match="is down"):
        await ask(writer, request("43", 5))

    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[:2] for line in calls] == [["item:42", "17"], ["item:43", "5"]]
