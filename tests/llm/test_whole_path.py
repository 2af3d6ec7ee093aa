"""A film's whole way with a real language model: Kafka, vLLM, the quality gate, Redis.

The model is small and often refused. Whether it writes well is not asked here; that everything it
wrote is accounted for is, and that what passes the gate, and nothing else, is what rankers get.
"""

import asyncio
import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio

from deploy.demo.films import read_season
from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKind, Stage
from schemas.knowledge import Document, KnowledgeUpdate, RegisterName
from schemas.reasons import Rejection
from schemas.topics import Topic
from streams.producers import CatalogProducer
from streams.settings import EncodeSettings, Settings
from tests.deployment import ITEM_PATH, Deployment
from tests.llm.conftest import START_SECONDS, WRITING
from tests.spaces import fit_spaces, register_spaces
from tests.stack import wait_until_blocking
from workers.knowledge.load_domain import load_domain
from workers.knowledge.quality import check
from workers.knowledge.select_prompt import prompt_id_of
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_models import BUNDLED_MODEL
from workers.knowledge.vllm_pages import ServerFigures, VllmPages
from workers.knowledge.writer import Answer
from workers.live.live_vectors import LiveVectors

FILMS = read_season().films[:12]
FACTORS = ("genre", "people")
MAX_FACTOR_CHARS, MAX_TOKENS = 120, 80
DOMAIN = load_domain(
    "movies", factors=FACTORS, max_factor_chars=MAX_FACTOR_CHARS, max_tokens=MAX_TOKENS
)
SETTLED_SECONDS = 300.0

pytestmark = [
    pytest.mark.timeout(START_SECONDS + SETTLED_SECONDS + 120),
    pytest.mark.asyncio(loop_scope="session"),
]


@dataclass(frozen=True)
class Written:
    """What became of the films: `told` is what `freshet explain` says, by key.

    `emitted` are the registers with knowledge on the topic, `figures` the server's own.
    """

    told: dict[str, dict[str, Any]]
    stages: dict[str, Stage]
    emitted: list[KnowledgeUpdate]
    calls: float
    figures: ServerFigures = field(default_factory=ServerFigures)

    def outcome(self, key: str) -> dict[str, Any]:
        """How the request for knowledge ended."""
        (ended,) = [one for one in self.told[key]["outcomes"] if one["lane"] == "knowledge"]
        return ended

    @property
    def accepted(self) -> list[str]:
        return [key for key in self.told if self.outcome(key)["outcome"] == "emitted"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def written(
    vllm: VllmServer,
    kafka: KafkaServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Written:
    """Twelve films through real lanes and the real server, once for all tests here."""
    root = tmp_path_factory.mktemp("whole-path")
    prefix = f"t{secrets.token_hex(4)}."
    spaces = Settings(encode=EncodeSettings(spaces_dir=root / "spaces"))
    await asyncio.to_thread(fit_spaces, spaces, root)
    deployment = Deployment(root, kafka.bootstrap_servers, redis_server.url, prefix)
    pages = VllmPages(vllm)
    try:
        before = await pages.figures()
        with deployment:
            found = await asyncio.to_thread(write_about_all, deployment, vllm)
        return replace(found, figures=(await pages.figures()).since(before))
    finally:
        await pages.aclose()


def write_about_all(deployment: Deployment, vllm: VllmServer) -> Written:
    register_spaces(deployment.settings)
    lanes = {name: deployment.start(name, **knowledge_settings(vllm)) for name in ITEM_PATH}
    wait_until_blocking(lambda: all(lane.ready for lane in lanes.values()), timeout=120)
    with CatalogProducer(deployment.bootstrap_servers, topic_prefix=deployment.prefix) as producer:
        for film in FILMS:
            producer.upsert(film.item_id, 1, film.fields)
        assert producer.flush(timeout=30).complete
    deployment.wait_settled(SETTLED_SECONDS)
    keys = [f"item:{film.item_id}" for film in FILMS]
    with (
        LiveVectors(deployment.redis_url, key_prefix=deployment.prefix) as live,
        live.pin() as view,
    ):
        stages = view.get(keys).stages.tolist()
    told = {}
    for key in keys:
        explained = deployment.freshet("explain", key, "--json")
        told[key] = json.loads(explained.stdout)
    emitted = [
        KnowledgeUpdate.decode(record.value)
        for record in deployment.records(deployment.prefix + Topic.KNOWLEDGE)
    ]
    return Written(
        told=told,
        stages={key: Stage(stage) for key, stage in zip(keys, stages, strict=True)},
        emitted=[update for update in emitted if update.register is RegisterName.INDIVIDUAL],
        calls=lanes["knowledge"].metric("freshet_writer_calls_total"),
    )


def knowledge_settings(vllm: VllmServer) -> dict[str, str]:
    knowledge = {
        "writer": "vllm",
        "model": BUNDLED_MODEL,
        "vllm_url": vllm.url,
        "vllm_api_key": vllm.api_key,
        "vllm_accepts_priority": "true",
        "call_seconds": "240",
        "in_flight": "16",
        "factors": json.dumps(FACTORS),
        "max_factor_chars": str(MAX_FACTOR_CHARS),
        "max_tokens": str(MAX_TOKENS),
        "frequency_penalty": str(WRITING.frequency_penalty),
        "repetition_penalty": str(WRITING.repetition_penalty),
        "refused_share": str(WRITING.refused_share),
        # On a slow machine all of this would be an overload; and refusals would come again.
        "overload_seconds": "86400",
        "rejected_retry_attempts": "0",
    }
    return {f"FRESHET_KNOWLEDGE__{name.upper()}": value for name, value in knowledge.items()}


async def test_every_film_was_asked_about_and_is_settled_one_way_or_the_other(written):
    outcomes = [written.outcome(key) for key in written.told]

    assert {one["outcome"] for one in outcomes} <= {"emitted", "rejected"}
    refused = [one for one in outcomes if one["outcome"] == "rejected"]
    assert {one["reason"] for one in refused} <= {reason.value for reason in Rejection}
    # A film costs one call, and a second one if the first answer was refused.
    assert len(FILMS) + len(refused) <= written.calls <= 2 * len(FILMS)
    assert written.figures.generated_tokens > 0
    assert written.figures.prefix_hit_rate > 0.3


async def test_whatever_the_model_said_every_film_is_rankable(written):
    stages = {key: written.stages[key] for key in written.told}

    assert stages == {
        key: Stage.INDIVIDUAL if key in written.accepted else Stage.CONTENT for key in written.told
    }


async def test_knowledge_is_what_the_model_wrote_and_the_gate_passed(written):
    assert written.accepted, {key: written.outcome(key) for key in written.told}
    by_key = {str(update.entity): update.value for update in written.emitted}
    assert sorted(by_key) == sorted(written.accepted)

    for key in written.accepted:
        document = Document.from_json(written.told[key]["document"])
        factors, content = document.individual, document.content
        assert factors is not None
        assert content is not None
        assert factors == by_key[key]
        assert tuple(factors.factors) == FACTORS
        assert factors.provenance.model == BUNDLED_MODEL
        assert factors.provenance.prompt_id == prompt_id_of(DOMAIN, EntityKind.ITEM)
        assert factors.provenance.completion_tokens > 0
        answer = Answer(factors.factors, 0, 0, "")
        assert check(answer, content.fields, DOMAIN) is None


async def test_a_refused_answer_leaves_no_trace_but_its_reason(written):
    for key in written.told.keys() - set(written.accepted):
        document = Document.from_json(written.told[key]["document"])
        assert document.individual is None
        assert document.content is not None
        assert written.outcome(key)["reason"]
