"""A backlog that makes way for others in the middle of its answers, and is killed just then.

Its requests go from the topic into calls, and back to the topic's tail when others come to the
server. Whatever the moment, each is on the topic or answered, and in the end all are.
"""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b

import pytest

from schemas.entities import EntityKey, Stage
from tests.delivery import (
    Traffic,
    assert_commits_are_covered,
    assert_vectors_follow,
    stored_documents,
)
from tests.deployment import Deploy, Deployment, LaneProcess
from tests.fakes.answers import factor_text
from tests.fakes.paced_vllm_server import PacedServerProcess
from tests.feed import TITLES, FeedEvent
from tests.stack import wait_until_blocking
from workers.knowledge.load_domain import load_domain
from workers.knowledge.select_prompt import prompt_about
from workers.live.live_vectors import LiveVectors

pytestmark = pytest.mark.timeout(420)

BACKLOG = "knowledge-backlog"
ITEMS = [EntityKey.item(f"b{number:02d}") for number in range(12)]
PLACES, OTHERS = 4, 2
SECONDS_A_CALL = 5.0
"""Long enough that no call of the backlog ends before others come."""

GAVE_WAY = f'freshet_writer_calls_total{{lane="{BACKLOG}",reason="gave_way"}}'


def test_a_backlog_killed_while_it_gives_way_answers_every_request_as_if_nothing_had_happened(
    deploy: Deploy,
) -> None:
    with PacedServerProcess(answers_per_second=PLACES / SECONDS_A_CALL, places=PLACES) as server:
        deployment = deploy(environment=_variables(server.url))
        lanes = deployment.start_all("items", "encode", "knowledge", timeout=180)
        _send_items(deployment)
        wait_until_blocking(lambda: len(_backlog(deployment)) == len(ITEMS), timeout=60)

        for moment in ("others run", "calls have ended", "a request is back", "it is committed"):
            lanes |= deployment.start_all(BACKLOG, timeout=60)
            wait_until_blocking(lambda: server.running() == PLACES, timeout=30)
            lane = lanes[BACKLOG]
            has_come = _sight_of(moment, deployment, lane, server)
            with _others_ask(server):
                wait_until_blocking(has_come)
                lane.kill()
            assert_commits_are_covered(deployment, BACKLOG)

        server.answer(400, places=PLACES)
        lanes |= deployment.start_all(BACKLOG, timeout=60)
        wait_until_blocking(lambda: set(_stages(deployment)) == {Stage.INDIVIDUAL}, timeout=90)
        deployment.wait_settled()
        _assert_answered(deployment)


def _sight_of(
    moment: str, deployment: Deployment, lane: LaneProcess, server: PacedServerProcess
) -> Callable[[], bool]:
    """Return what tells that a moment has come; called before it can."""
    offsets, requests = deployment.committed(BACKLOG), len(_backlog(deployment))
    match moment:
        case "others run":
            return lambda: True
        case "calls have ended":
            return lambda: server.running() == OTHERS
        case "a request is back":
            return lambda: lane.metric(GAVE_WAY) >= PLACES and len(_backlog(deployment)) > requests
        case _:
            return lambda: deployment.committed(BACKLOG) != offsets


def _variables(url: str) -> Mapping[str, str]:
    return {
        "FRESHET_KNOWLEDGE__WRITER": "vllm",
        "FRESHET_KNOWLEDGE__MODEL": "a-model",
        "FRESHET_KNOWLEDGE__VLLM_URL": url,
        "FRESHET_KNOWLEDGE__VLLM_ACCEPTS_PRIORITY": "true",
        "FRESHET_KNOWLEDGE__IN_FLIGHT": str(2 * PLACES),
        "FRESHET_KNOWLEDGE__CALL_SECONDS": "30",
        "FRESHET_KNOWLEDGE__BACKLOG_BESIDE": "0",
        # There are no groups: requests go to the backlog as soon as they come.
        "FRESHET_KNOWLEDGE__OVERLOAD_SECONDS": "0.001",
    }


def _send_items(deployment: Deployment) -> None:
    feed = [FeedEvent(key.id, 1, _title(number), 0) for number, key in enumerate(ITEMS)]
    traffic = Traffic(deployment, feed, per_second=5_000)
    traffic.start()
    traffic.finish()


def _title(number: int) -> str:
    return f"{TITLES[number % 4]} part {number}"


@contextmanager
def _others_ask(server: PacedServerProcess) -> Iterator[None]:
    """Let others' calls run at the server; they end by themselves."""
    before = server.calls()
    threads = [threading.Thread(target=_ask, args=(server.url,)) for _ in range(OTHERS)]
    for thread in threads:
        thread.start()
    wait_until_blocking(lambda: server.calls() >= before + OTHERS)
    yield
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def _ask(url: str) -> None:
    call = {
        "model": "a-model",
        "messages": [{"role": "user", "content": "What do others ask?"}],
        "response_format": {"json_schema": {"schema": {"properties": {"answer": {}}}}},
    }
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(call).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def _backlog(deployment: Deployment) -> list[object]:
    return deployment.records(deployment.prefix + "knowledge.backlog")


def _stages(deployment: Deployment) -> list[Stage]:
    live = LiveVectors(deployment.redis_url, key_prefix=deployment.prefix)
    with live.pin() as view:
        return [Stage(stage) for stage in view.get([str(key) for key in ITEMS]).stages]


def _assert_answered(deployment: Deployment) -> None:
    """Assert that all items have the very knowledge that the server writes about each."""
    settings = deployment.settings.knowledge
    domain = load_domain(
        settings.domain,
        factors=settings.factors,
        max_factor_chars=settings.max_factor_chars,
        max_tokens=settings.max_tokens,
    )
    documents = stored_documents(deployment, ITEMS)
    for key, document in zip(ITEMS, documents, strict=True):
        assert document.content is not None
        assert document.individual is not None
        prompt = prompt_about(domain, key, document.content.fields)
        subject = f"subject {blake2b(prompt.user.encode(), digest_size=4).hexdigest()}"
        assert document.individual.factors == {
            name: factor_text(name, subject) for name in domain.factor_names
        }
        assert document.individual.version == document.content.version == 1
    assert_vectors_follow(deployment, list(zip(ITEMS, documents, strict=True)))
    for lane in ("knowledge", BACKLOG):
        assert deployment.records(deployment.prefix + f"dead-letters.{lane}") == []
