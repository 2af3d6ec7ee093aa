"""VllmWriter against a real HTTP server on the loopback that misbehaves on request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError, Permanent, Transient
from schemas.fingerprints import Json
from schemas.knowledge import KnowledgeRequest, RequestKind
from schemas.reasons import Reason, Rejection
from tests.fakes.vllm_server import Behaviour, FakeVllmServer
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import Prompt, item_prompt
from workers.knowledge.quality import QualityGate
from workers.knowledge.sampling import Sampling
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_writer import VllmWriter
from workers.knowledge.writer import Answer, Rejected

FACTORS = ("genre", "people", "theme", "mood", "acclaim", "audience")
DOMAIN = load_domain("movies", factors=FACTORS, max_factor_chars=400, max_tokens=400)
FIELDS: dict[str, Json] = {"title": "The Secret Title", "year": 1999}
REQUEST = KnowledgeRequest(
    EntityKey.item("42"), RequestKind.NEW, 17, FIELDS, "f" * 32, 1_000, 2_000
)


@pytest.fixture
async def server() -> AsyncIterator[FakeVllmServer]:
    async with FakeVllmServer() as running:
        yield running


@contextlib.asynccontextmanager
async def writing_to(url: str, **arguments) -> AsyncIterator[VllmWriter]:
    writer = VllmWriter(VllmServer(url, **{"call_seconds": 5.0} | arguments), model="a-model")
    try:
        yield writer
    finally:
        await writer.aclose()


def prompt() -> Prompt:
    return item_prompt(DOMAIN, REQUEST.entity, FIELDS)


async def ask(writer: VllmWriter, *, priority: int = 0) -> Answer:
    return await writer.write(prompt(), REQUEST, priority=priority)


async def test_an_answer_has_the_asked_factors_and_what_it_cost(server):
    async with writing_to(server.url) as writer:
        answer = await ask(writer)

    assert tuple(answer.factors) == FACTORS
    assert (answer.prompt_tokens, answer.completion_tokens) == (321, 123)
    assert QualityGate(DOMAIN).judge(answer, FIELDS) is None


async def test_the_request_asks_for_a_strict_schema_with_a_bound_on_every_factor(server):
    async with writing_to(server.url) as writer:
        await ask(writer, priority=9)

    (body,) = server.requests
    wanted = body["response_format"]["json_schema"]
    assert body["model"] == "a-model"
    assert body["temperature"] == 0
    assert body["max_tokens"] == 400
    assert wanted["strict"] is True
    assert wanted["schema"]["additionalProperties"] is False
    assert {text["maxLength"] for text in wanted["schema"]["properties"].values()} == {200}
    assert "priority" not in body


async def test_priority_is_sent_only_to_a_server_that_schedules_by_it(server):
    async with writing_to(server.url, accepts_priority=True) as writer:
        await ask(writer, priority=9)

    assert server.requests[0]["priority"] == 9


async def test_examples_are_sent_as_a_dialogue_before_the_question(server):
    async with writing_to(server.url) as writer:
        await ask(writer)

    messages = server.requests[0]["messages"]
    asked = prompt()
    assert [message["role"] for message in messages] == [
        "system",
        *(["user", "assistant"] * len(asked.examples)),
        "user",
    ]
    assert len(asked.examples) > 0
    assert tuple(messages[number]["content"] for number in (1, 2)) == asked.examples[0]
    assert messages[-1]["content"] == asked.user


async def test_sampling_is_sent_as_declared_and_penalties_only_where_they_are(server):
    sampling = Sampling(temperature=0.3, frequency_penalty=0.2, repetition_penalty=1.1)

    async with writing_to(server.url, sampling=sampling) as writer:
        await ask(writer)
    async with writing_to(server.url) as writer:
        await ask(writer)

    chosen, plain = server.requests
    penalties = {"frequency_penalty": 0.2, "repetition_penalty": 1.1}
    assert {name: chosen[name] for name in penalties} == penalties
    assert (chosen["temperature"], plain["temperature"]) == (0.3, 0)
    assert {"top_p", *penalties} & plain.keys() == set()


async def test_a_tenants_salt_is_sent_and_nothing_without_one(server):
    async with writing_to(server.url, cache_salt="tenant-1") as writer:
        await ask(writer)
    async with writing_to(server.url) as writer:
        await ask(writer)

    salted, plain = server.requests
    assert salted["cache_salt"] == "tenant-1"
    assert "cache_salt" not in plain


async def test_the_api_key_is_sent():
    async with FakeVllmServer(api_key="secret") as server:
        async with writing_to(server.url, api_key="secret") as writer:
            answer = await ask(writer)
        async with writing_to(server.url, api_key="wrong") as writer:
            with pytest.raises(Transient, match="API key"):
                await ask(writer)

    assert answer.factors


async def test_an_address_that_ends_in_v1_means_the_same_server(server):
    async with writing_to(f"{server.url}/v1/") as writer:
        assert (await ask(writer)).factors


@pytest.mark.parametrize("behaviour", [Behaviour.HANG, Behaviour.SLOW_HEADERS, Behaviour.SLOW_BODY])
async def test_a_call_ends_at_its_deadline_however_the_server_stalls(server, behaviour):
    server.will(behaviour)

    async with writing_to(server.url, call_seconds=0.3) as writer:
        started = asyncio.get_running_loop().time()
        with pytest.raises(Transient, match=r"no whole answer within 0\.3 s"):
            await ask(writer)
        took = asyncio.get_running_loop().time() - started

    assert 0.25 < took < 2.0


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (Behaviour.RATE_LIMITED, "HTTP 429"),
        (Behaviour.SERVER_ERROR, "HTTP 500"),
        (Behaviour.DROP, "RemoteProtocolError|ReadError"),
        (Behaviour.ENDLESS, "over 1048576 bytes"),
        (Behaviour.BAD_GATEWAY_PAGE, "without a chat completion"),
        (Behaviour.ABORTED, "ended the answer: abort"),
        (Behaviour.UNAUTHORIZED, "API key"),
        (Behaviour.NO_SUCH_MODEL, "no such model"),
        (Behaviour.PRIORITY_REFUSED, "objects to priority"),
    ],
)
async def test_what_another_time_or_another_setting_may_cure_is_transient(
    server, behaviour, detail
):
    server.will(behaviour)

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient, match=detail) as raised:
            await ask(writer)
        recovered = await ask(writer)

    assert raised.value.dependency == "vllm"
    assert recovered.factors
    assert (writer.stats.transient, writer.stats.answers) == (1, 1)


@pytest.mark.parametrize(
    ("behaviour", "seconds"),
    [
        (Behaviour.RATE_LIMITED, 7.0),
        (Behaviour.RATE_LIMITED_UNTIL, 0.0),
        (Behaviour.SERVER_ERROR, None),
    ],
)
async def test_the_server_may_say_when_to_come_back(server, behaviour, seconds):
    server.will(behaviour)

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient) as raised:
            await ask(writer)

    assert raised.value.retry_after_seconds == seconds


async def test_a_server_that_is_not_there_is_transient():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    async with writing_to(f"http://127.0.0.1:{port}") as writer:
        with pytest.raises(Transient, match="ConnectError"):
            await ask(writer)


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (Behaviour.CONTEXT_TOO_LONG, "longer than the model's context"),
        (Behaviour.UNKNOWN_COMPLAINT, "complaint [0-9a-f]{32}"),
    ],
)
async def test_a_request_that_can_never_work_is_refused_without_repeating_the_prompt(
    server, behaviour, detail
):
    server.will(behaviour)

    async with writing_to(server.url) as writer:
        with pytest.raises(Permanent, match=detail) as raised:
            await ask(writer)

    assert raised.value.reason is Reason.REFUSED
    assert "Secret" not in str(raised.value)
    assert writer.stats.refused == 1


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour.CUT_BY_LENGTH, Rejection.TRUNCATED),
        (Behaviour.TRUNCATED_JSON, Rejection.TRUNCATED),
        (Behaviour.NOT_JSON, Rejection.NOT_JSON),
        (Behaviour.NOT_AN_OBJECT, Rejection.NOT_JSON),
        (Behaviour.WRONG_SCHEMA, Rejection.MISSING_FACTOR),
        (Behaviour.NO_CONTENT, Rejection.NOT_JSON),
        (Behaviour.DECLINED, Rejection.REFUSAL),
    ],
)
async def test_an_unusable_answer_is_rejected_under_its_code(server, behaviour, code):
    server.will(behaviour)

    async with writing_to(server.url) as writer:
        with pytest.raises(Rejected) as raised:
            await ask(writer)

    rejected = raised.value
    assert rejected.rejection is code
    assert (rejected.prompt_tokens, rejected.completion_tokens) == (321, 123)
    assert writer.stats.rejected == {code: 1}


async def test_a_cancelled_call_lets_the_server_stop_writing(server):
    server.will(Behaviour.HANG)

    async with writing_to(server.url) as writer:
        call = asyncio.create_task(ask(writer))
        async with asyncio.timeout(5):
            while not server.requests:
                await asyncio.sleep(0.005)
        call.cancel()
        async with asyncio.timeout(5):
            await server.disconnected.wait()

    assert call.cancelled() or call.cancelling()
    assert writer.stats.in_flight == 0


async def test_many_calls_share_the_connections(server):
    async with writing_to(server.url, connections=4) as writer:
        answers = await asyncio.gather(*(ask(writer) for _ in range(40)))

    assert len(answers) == writer.stats.answers == 40
    assert writer.stats.completion_tokens == 40 * 123


@pytest.mark.parametrize("url", ["", "vllm:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError, match="VLLM_URL"):
        VllmWriter(VllmServer(url), model="a-model")


# ---- the model ---------------------------------------------------------------------------------


async def test_another_model_is_refused_in_plain_words_without_a_call(server):
    server.models = ["another-model", "a-third"]

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient) as raised:
            await ask(writer)

    assert str(raised.value) == "vllm: serves another-model, a-third, declared is a-model"
    assert raised.value.retry_after_seconds is not None, "no record is to blame"
    assert server.requests == []


async def test_it_goes_on_when_the_declared_model_is_back(server):
    server.models = ["another-model"]

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient):
            await ask(writer)
        server.models = ["a-model"]
        answer = await ask(writer)

    assert answer.factors


async def test_a_model_that_is_exchanged_between_two_calls_is_named_at_once(server):
    async with writing_to(server.url) as writer:
        await ask(writer)
        server.models = ["another-model"]
        with pytest.raises(Transient, match="serves another-model, declared is a-model"):
            await ask(writer)


async def test_an_answer_that_another_model_gave_never_passes(server):
    server.answers_as = "another-model"

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient, match="answered as another-model, declared is a-model"):
            await ask(writer)

    assert writer.stats.answers == 0


async def test_what_a_server_calls_its_models_is_bounded_and_printable(server):
    server.models = ["m\n\x1b[31m" * 1_000]

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient) as raised:
            await ask(writer)

    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


async def test_a_server_without_any_model_is_refused(server):
    server.models = []

    async with writing_to(server.url) as writer:
        with pytest.raises(Transient, match="serves nothing, declared is a-model"):
            await ask(writer)


async def test_after_any_trouble_the_model_is_looked_up_before_the_next_call(server):
    server.answers_any_name = True
    server.will(Behaviour.ANSWER, Behaviour.SERVER_ERROR)

    async with writing_to(server.url) as writer:
        await ask(writer)
        with pytest.raises(Transient, match="HTTP 500"):
            await ask(writer)
        server.models = ["another-model"]
        with pytest.raises(Transient, match="serves another-model, declared is a-model"):
            await ask(writer)

    assert len(server.requests) == 2
