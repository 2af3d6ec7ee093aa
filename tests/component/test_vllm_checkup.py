"""`freshet llm check` against a server of our own: what it reports and how it ends."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from schemas.errors import Transient
from streams.cli.llm import _items
from tests.cli_runner import run_freshet
from tests.fakes.vllm_server import Behaviour, FakeVllmServer
from workers.knowledge.load_domain import load_domain
from workers.knowledge.vllm_checkup import SAMPLE_FILMS, Checkup, check_up
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_pages import ServerFigures, read_server_figures

DOMAIN = load_domain(
    "movies", factors=("genre", "people", "theme"), max_factor_chars=200, max_tokens=400
)


async def check(server: FakeVllmServer, *, model: str = "a-model", count: int = 8) -> Checkup:
    return await check_up(
        VllmServer(server.url, call_seconds=5.0),
        model=model,
        domain=DOMAIN,
        items=SAMPLE_FILMS[:count],
        in_flight=2,
    )


async def test_a_good_server_passes_with_its_figures():
    async with FakeVllmServer() as server:
        checkup = await check(server)

    assert checkup.passed
    assert (checkup.valid, checkup.accepted, checkup.asked) == (8, 8, 8)
    assert checkup.figures.generated_tokens == 8 * 123
    assert checkup.figures.prefix_hit_rate == pytest.approx(7 * 256 / (8 * 321))
    assert checkup.tokens_per_second == pytest.approx(8 * 123 / checkup.seconds)
    assert len(checkup.latencies) == 8
    assert json.loads(checkup.first).keys() == {"genre", "people", "theme"}


async def test_the_figures_are_those_of_the_check_alone():
    async with FakeVllmServer() as server:
        await check(server)
        second = await check(server, count=1)

    assert second.figures.generated_tokens == 123


async def test_another_model_than_the_declared_one_does_not_pass():
    async with FakeVllmServer() as server:
        checkup = await check(server, model="declared")

    assert checkup.served == ("a-model",)
    assert not checkup.model_agrees
    assert not checkup.passed


async def test_answers_without_the_schema_are_counted_by_reason_and_do_not_pass():
    async with FakeVllmServer() as server:
        server.will(Behaviour.NOT_JSON, Behaviour.CUT_BY_LENGTH)
        checkup = await check(server)

    assert checkup.valid == 6
    assert checkup.refused == {"not_json": 1, "truncated": 1}
    assert not checkup.passed


async def test_one_answer_in_ten_may_lack_its_end():
    async with FakeVllmServer() as server:
        server.will(Behaviour.CUT_BY_LENGTH)
        checkup = await check_up(
            VllmServer(server.url),
            model="a-model",
            domain=DOMAIN,
            items=[{"title": f"Film {number}"} for number in range(10)],
            in_flight=10,
        )

    assert checkup.valid == 9
    assert checkup.passed


async def test_a_call_that_fails_does_not_pass_and_says_why():
    async with FakeVllmServer() as server:
        server.will(Behaviour.SERVER_ERROR)
        checkup = await check(server)

    assert checkup.failed == {"vllm: HTTP 500": 1}
    assert not checkup.passed


async def test_a_wrong_key_is_transient_and_named():
    async with FakeVllmServer(api_key="secret") as server:
        with pytest.raises(Transient, match="API key"):
            await check(server)


def test_figures_of_several_engines_are_added_up():
    page = "".join(
        f'vllm:{name}{{engine="{engine}"}} {value}\n'
        for engine in (0, 1)
        for value, name in enumerate(
            (
                "num_requests_running",
                "num_requests_waiting",
                "prompt_tokens_total",
                "generation_tokens_total",
                "prefix_cache_queries_total",
                "prefix_cache_hits_total",
            ),
            start=1,
        )
    )

    figures = read_server_figures(page)

    assert figures == ServerFigures(2, 4, 6, 8, 10, 12)


def test_a_page_of_something_else_has_no_figures():
    with pytest.raises(ValueError, match="num_requests_running"):
        read_server_figures("freshet_up 1\n")


def test_a_server_that_was_asked_nothing_has_no_hits():
    assert ServerFigures().prefix_hit_rate == 0.0


@contextmanager
def in_a_thread() -> Iterator[FakeVllmServer]:
    """A running server in a loop of its own: the command brings a loop too."""
    server, loop = FakeVllmServer(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def run_check(capsys, monkeypatch, tmp_path) -> Callable[..., object]:
    monkeypatch.setenv("FRESHET_LLM__RUN_DIR", str(tmp_path))

    def run(server_url: str, *arguments: str):
        return run_freshet(capsys, "llm", "check", "--url", server_url, *arguments)

    return run


def test_the_command_prints_one_json_object_and_ends_with_0(run_check):
    with in_a_thread() as server:
        ran = run_check(server.url, "--model", "a-model", "--answers", "4", "--json")

    facts = json.loads(ran.out)
    assert ran.code == 0
    assert (facts["valid"], facts["asked"], facts["passed"]) == (4, 4, True)
    assert facts["figures"]["generated_tokens"] == 4 * 123
    assert facts["tokens_per_second"] > 0


def test_refused_answers_are_counted_in_the_json_object(run_check):
    with in_a_thread() as server:
        server.will(Behaviour.NOT_JSON)
        ran = run_check(server.url, "--model", "a-model", "--answers", "4", "--json")

    assert json.loads(ran.out)["refused"] == {"not_json": 1}
    assert ran.code == 1


def test_the_command_says_what_is_served_and_ends_with_1_for_another_model(run_check):
    with in_a_thread() as server:
        ran = run_check(server.url, "--model", "declared")

    assert ran.code == 1
    assert "a-model (not the declared one)" in ran.out


def test_no_server_is_one_line_with_code_1(run_check):
    ran = run_check("http://127.0.0.1:1")

    assert ran.code == 1
    assert ran.err.startswith("freshet: vllm: ")
    assert len(ran.err.splitlines()) == 1


def test_more_answers_than_items_are_refused(run_check):
    ran = run_check("http://127.0.0.1:1", "--answers", "99")

    assert ran.code == 2
    assert "more than the 8 items" in " ".join(ran.err.split())


def test_a_catalogue_may_hold_events_or_bare_items(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text(
        '{"fields": {"title": "Heat"}, "version": 1}\n{"item_id": "2", "title": "Up"}\n'
    )

    assert _items(file, 2) == [{"title": "Heat"}, {"title": "Up"}]


@pytest.mark.parametrize("line", ["not json", "[]", '{"title": 3}', '{"year": 1995}'])
def test_a_line_that_is_no_item_is_named(run_check, tmp_path, line):
    file = tmp_path / "items.jsonl"
    file.write_text(f"{line}\n")

    ran = run_check("http://127.0.0.1:1", "--catalog", str(file))

    assert ran.code == 2
    assert "items.jsonl, line 1" in ran.err
