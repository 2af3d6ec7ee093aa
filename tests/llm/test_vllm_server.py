"""The real server with the real, small model: the path and the schema, not that it writes well."""

import asyncio

import httpx
import pytest

from deploy.demo.films import read_season
from schemas.entities import EntityKey, EntityKind
from schemas.knowledge import KnowledgeRequest, RequestKind
from streams.settings import DEFAULT_FACTORS
from tests.llm.conftest import START_SECONDS, WRITING
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import item_prompt
from workers.knowledge.vllm_checkup import check_up
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_models import BUNDLED_MODEL
from workers.knowledge.vllm_pages import VllmPages
from workers.knowledge.vllm_writer import VllmWriter

# The first test waits for the server, and makes the model where it is not there yet.
pytestmark = [pytest.mark.timeout(START_SECONDS + 180), pytest.mark.asyncio(loop_scope="session")]

DOMAIN = load_domain(
    WRITING.domain,
    factors=WRITING.factors,
    max_factor_chars=WRITING.max_factor_chars,
    max_tokens=WRITING.max_tokens,
)


def client_of(vllm: VllmServer, *, key: bool = True) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {vllm.api_key}"} if key else {}
    return httpx.AsyncClient(base_url=vllm.url, headers=headers, timeout=60.0, trust_env=False)


async def complete(client: httpx.AsyncClient, text: str) -> str:
    request = {"model": BUNDLED_MODEL, "prompt": text, "max_tokens": 5, "temperature": 0.0}
    answer = await client.post("/v1/completions", json=request)
    return str(answer.raise_for_status().json()["choices"][0]["text"])


async def test_a_film_gets_a_text_for_every_factor(vllm):
    film = read_season().films[0]
    entity = EntityKey(EntityKind.ITEM, film.item_id)
    request = KnowledgeRequest(entity, RequestKind.NEW, 1, film.fields, "f" * 32, 0, 0)
    prompt = item_prompt(DOMAIN, entity, film.fields)
    writer = VllmWriter(vllm, model=BUNDLED_MODEL)

    try:
        answer = await writer.write(prompt, request, priority=3)
    finally:
        await writer.aclose()

    assert tuple(answer.factors) == DEFAULT_FACTORS
    assert all(len(text) <= DOMAIN.max_factor_chars for text in answer.factors.values())
    assert answer.completion_tokens > 0


async def test_the_converted_weights_still_know_what_the_model_knew(vllm):
    async with client_of(vllm) as client:
        said = await complete(client, "The capital of France is")

    assert "Paris" in said


async def test_a_check_passes_and_finds_the_shared_prompt_in_the_prefix_cache(vllm):
    films = [film.fields for film in read_season().films[:6]]

    checkup = await check_up(vllm, model=BUNDLED_MODEL, domain=DOMAIN, items=films, in_flight=2)

    assert checkup.served == (BUNDLED_MODEL,)
    assert not checkup.failed
    assert checkup.figures.generated_tokens > 0
    assert checkup.figures.prefix_hit_rate > 0.3


async def test_paths_that_no_key_guards_do_not_exist(vllm):
    request = {"model": BUNDLED_MODEL, "prompt": "x", "max_tokens": 1}
    async with client_of(vllm, key=False) as anyone:
        ways_in = await asyncio.gather(
            anyone.post("/invocations", json=request),
            anyone.post("/tokenize", json=request),
            anyone.post("/v1/completions", json=request),
            anyone.get("/health"),
        )

    assert [answer.status_code for answer in ways_in] == [404, 404, 401, 200]


async def test_a_callers_chat_template_is_refused(vllm):
    request = {
        "model": BUNDLED_MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "chat_template": "{{ messages }}",
        "max_tokens": 1,
    }
    async with client_of(vllm) as client:
        answer = await client.post("/v1/chat/completions", json=request)

    assert answer.status_code == 400


async def test_nobody_waits_when_nobody_asked(vllm):
    pages = VllmPages(vllm)

    try:
        figures = await pages.figures()
    finally:
        await pages.aclose()

    assert (figures.running, figures.waiting) == (0, 0)
