"""Writers that need no server: the recorded one, the fake one, and how one is chosen."""

import asyncio

import pytest

from schemas.entities import EntityKey, EntityKind
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
from workers.knowledge.user_prompt import user_prompt
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_writer import VllmWriter
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


def taste(*liked: str, disliked: tuple[str, ...] = ()) -> dict:
    return {
        "liked": [{"item": id_, "title": f"Film {id_}"} for id_ in liked],
        "disliked": [{"item": id_, "title": f"Film {id_}"} for id_ in disliked],
    }


async def ask_about_user(writer: Writer, fields: dict):
    key = EntityKey(EntityKind.USER, "7")
    wanted = KnowledgeRequest(key, RequestKind.USER, 1, fields, "f" * 32, 1_000, 2_000)
    return await writer.write(user_prompt(DOMAIN, fields), wanted, priority=0)


SEA, LAND, AIR, FIRE = (
    {"genre": "sea drama, slow-burning; shot on real boats", "mood": "grey, cold and lonely"},
    {"genre": "western farce, shot on real horses", "mood": "dusty and bright. Very loud"},
    {"genre": "flying comedy, fast", "mood": "grey, cold and lonely"},
    {"genre": "volcano thriller, loud", "mood": "red and hot all over"},
)


async def test_the_recorded_writer_puts_a_taste_together_from_the_titles_liked_most():
    writer = RecordedWriter({"1": SEA, "2": LAND, "3": AIR, "4": FIRE}, model="m")

    answer = await ask_about_user(writer, taste("1", "unknown", "2", "3", "4"))

    assert answer.factors == {
        "genre": "sea drama; western farce; flying comedy; slow-burning; shot on real horses; fast",
        "mood": "grey; dusty and bright; cold and lonely; Very loud",
    }
    assert QualityGate(DOMAIN).judge(answer, taste("1", "2", "3"), EntityKind.USER) is None


async def test_what_was_disliked_has_no_part_in_the_recorded_answer():
    writer = RecordedWriter({"1": SEA, "2": LAND}, model="m")

    answer = await ask_about_user(writer, taste("2", disliked=("1",)))

    assert "sea" not in answer.factors["genre"]


async def test_a_recorded_answer_about_a_user_keeps_the_bounds():
    long = {"genre": ", ".join(f"word{n} other{n} third{n}" for n in range(90)), "mood": "w" * 999}
    writer = RecordedWriter({"1": long, "2": long}, model="m")

    answer = await ask_about_user(writer, taste("1", "2"))

    assert all(50 < len(text) < DOMAIN.max_factor_chars for text in answer.factors.values())
    assert len(set(answer.factors["genre"].split())) == len(answer.factors["genre"].split())


@pytest.mark.parametrize("fields", [taste("44"), taste("44", disliked=("1",))])
async def test_without_a_recorded_liked_title_there_is_no_answer_about_a_user(fields):
    writer = RecordedWriter({"1": SEA}, model="m")

    with pytest.raises(Rejected) as raised:
        await ask_about_user(writer, fields)

    assert raised.value.rejection is Rejection.NO_ANSWER
    assert "7" not in str(raised.value)


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
