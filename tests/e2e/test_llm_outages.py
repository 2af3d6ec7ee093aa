"""Everything that can go wrong with a language model's server, on real processes.

The lanes run once for all tests and are never restarted; each test breaks the server in its own
way and mends it. Meanwhile new content goes live, knowledge that was there stays, and the lane says
what is wrong; afterwards every item gets the knowledge that it waited for.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from schemas.entities import EntityKey, Stage
from schemas.fingerprints import knowledge_fingerprint
from schemas.knowledge import Document
from tests.delivery import Traffic, assert_vectors_follow, stored_documents
from tests.deployment import ITEM_PATH, Deploy, Deployment, LaneProcess
from tests.fakes.vllm_server import Behaviour
from tests.fakes.vllm_server_process import VllmServerProcess
from tests.feed import TITLES, FeedEvent
from tests.stack import wait_until_blocking
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import prompt_id
from workers.live.live_vectors import LiveVectors

_START_SECONDS = 150.0
pytestmark = pytest.mark.timeout(_START_SECONDS + 180)

MODEL, OTHER_MODEL = "a-model", "another-model"
KNOWN_ITEMS, NEW_ITEMS = 4, 24
"""Enough that a model which answers all of them with garbage is noticed."""

CALL_SECONDS = 1.5
RETRY_AFTER_SECONDS = 7


@dataclass(slots=True)
class World:
    """A deployment that writes by the server, and what its items should come to."""

    deployment: Deployment
    lanes: dict[str, LaneProcess]
    server: VllmServerProcess
    prompt_id: str
    scenes: list["Scene"] = field(default_factory=list)

    def scene(self) -> "Scene":
        """Return items that no other test has."""
        scene = Scene(self, f"s{len(self.scenes)}")
        self.scenes.append(scene)
        return scene

    def assert_whole(self) -> None:
        """Assert that nothing was buried on the way, and that vectors are those of the texts."""
        for name in ("knowledge", "knowledge-backlog"):
            assert self.deployment.records(self.deployment.prefix + f"dead-letters.{name}") == []
        every = [key for scene in self.scenes for key in (*scene.known, *scene.new[:KNOWN_ITEMS])]
        documents = stored_documents(self.deployment, every)
        there = [pair for pair in zip(every, documents, strict=True) if pair[1].content is not None]
        assert_vectors_follow(self.deployment, there)


@dataclass(slots=True)
class Scene:
    """The items of one test: some are known before the trouble and edited in it, others new."""

    world: World
    name: str

    @property
    def known(self) -> list[EntityKey]:
        return [EntityKey.item(f"{self.name}-known-{n}") for n in range(KNOWN_ITEMS)]

    @property
    def new(self) -> list[EntityKey]:
        return [EntityKey.item(f"{self.name}-new-{n:02d}") for n in range(NEW_ITEMS)]

    def send(self, keys: Sequence[EntityKey], *, version: int) -> None:
        """Send the items, with titles that only this version has."""
        feed = [
            FeedEvent(key.id, version, f"{TITLES[n % 4]} {key.id} part {version}", 0)
            for n, key in enumerate(keys)
        ]
        traffic = Traffic(self.world.deployment, feed, per_second=400)
        traffic.start()
        traffic.finish()

    def documents(self, keys: Sequence[EntityKey]) -> list[Document]:
        return stored_documents(self.world.deployment, keys)

    def are_live(self, keys: Sequence[EntityKey], *, version: int) -> bool:
        """Whether rankers can find this version's content of all items."""
        return all(
            document.content is not None and document.content.version == version
            for document in self.documents(keys)
        )

    def are_known(self, keys: Sequence[EntityKey]) -> bool:
        """Whether all items have knowledge that was written about what their content says."""
        return all(
            document.content is not None
            and document.individual is not None
            and document.individual.provenance.fingerprint
            == knowledge_fingerprint(document.content.fingerprint, self.world.prompt_id, MODEL)
            for document in self.documents(keys)
        )

    def stages(self, keys: Sequence[EntityKey]) -> list[Stage]:
        """Return what rankers read."""
        deployment = self.world.deployment
        live = LiveVectors(deployment.redis_url, key_prefix=deployment.prefix)
        with live.pin() as view:
            return [Stage(stage) for stage in view.get([str(key) for key in keys]).stages]

    @contextmanager
    def trouble(self, saying: str) -> Iterator[None]:
        """See the deployment through a trouble that begins just before and ends with the block."""
        lane = self.world.lanes["knowledge"]
        closed_before = _closings(lane)
        self.send(self.known, version=2)
        self.send(self.new, version=1)

        _eventually(lambda: self.are_live(self.known, version=2))
        _eventually(lambda: self.are_live(self.new, version=1))
        _eventually(lambda: saying in _reason(lane))
        _eventually(lambda: _circuit(lane) == 1)
        _eventually(lambda: saying in lane.log.read_text())
        assert set(self.stages(self.known)) == {Stage.INDIVIDUAL}, "the last good knowledge stays"
        assert set(self.stages(self.new)) == {Stage.CONTENT}
        assert self.world.lanes["items"].ready
        assert self.world.lanes["encode"].ready

        yield

        everything = [*self.known, *self.new]
        _eventually(lambda: self.are_known(everything), timeout=60)
        _eventually(lambda: lane.ready)
        _eventually(lambda: _circuit(lane) == 0)
        _eventually(lambda: _closings(lane) > closed_before)
        assert set(self.stages(everything)) == {Stage.INDIVIDUAL}


@pytest.fixture(scope="module")
def world(deploy_for_all: Deploy) -> Iterator[World]:
    with VllmServerProcess(model=MODEL) as server:
        deployment = deploy_for_all(
            environment={
                "FRESHET_KNOWLEDGE__WRITER": "vllm",
                "FRESHET_KNOWLEDGE__MODEL": MODEL,
                "FRESHET_KNOWLEDGE__VLLM_URL": server.url,
                "FRESHET_KNOWLEDGE__CALL_SECONDS": str(CALL_SECONDS),
                "FRESHET_KNOWLEDGE__VLLM_CONNECT_SECONDS": "1",
                "FRESHET_KNOWLEDGE__REJECTED_RETRY_FIRST_SECONDS": "0.5",
                # Of the last 40, some of which went well before the trouble.
                "FRESHET_KNOWLEDGE__REFUSED_SHARE": "0.5",
            }
        )
        knowledge = deployment.settings.knowledge
        domain = load_domain(
            knowledge.domain,
            factors=knowledge.factors,
            max_factor_chars=knowledge.max_factor_chars,
            max_tokens=knowledge.max_tokens,
        )
        lanes = {name: deployment.start(name) for name in ITEM_PATH}
        _eventually(lambda: all(lane.ready for lane in lanes.values()), timeout=_START_SECONDS)
        world = World(deployment, lanes, server, prompt_id(domain))
        yield world
        world.assert_whole()


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    """Items with knowledge behind a server in good health; no lane ends while they are watched."""
    ids = {name: lane.process.pid for name, lane in world.lanes.items()}
    world.server.mend()  # in whatever state another test left it
    scene = world.scene()
    scene.send(scene.known, version=1)
    _eventually(lambda: scene.are_known(scene.known), timeout=60)
    yield scene
    for name, lane in world.lanes.items():
        assert lane.process.poll() is None, lane.tail()
        assert lane.process.pid == ids[name]


def test_a_killed_server_delays_knowledge_and_nothing_else(scene: Scene) -> None:
    scene.world.server.kill()

    with scene.trouble("Connect"):
        scene.world.server.start()


def test_a_server_that_accepts_and_never_answers_is_given_up_on(scene: Scene) -> None:
    scene.world.server.stop()

    with scene.trouble(f"answer within {CALL_SECONDS:g} s"):
        scene.world.server.go_on()


def test_a_model_that_never_answers_is_given_up_on(scene: Scene) -> None:
    scene.world.server.behave(Behaviour.HANG)

    with scene.trouble(f"answer within {CALL_SECONDS:g} s"):
        scene.world.server.behave(Behaviour.ANSWER)


def test_a_server_that_answers_garbage_uses_no_request_up(scene: Scene) -> None:
    scene.world.server.behave(Behaviour.NOT_JSON)

    with scene.trouble("requests got no usable answer, the last for not_json"):
        lane = scene.world.lanes["knowledge"]
        refused = 'freshet_records_total{lane="knowledge",outcome="rejected",reason="not_json"}'
        assert lane.metric(refused) > 0
        scene.world.server.behave(Behaviour.ANSWER)


def test_a_proxy_without_its_server_is_no_server(scene: Scene) -> None:
    scene.world.server.behave(Behaviour.BAD_GATEWAY_PAGE)

    with scene.trouble("HTTP 200 without a chat completion in it"):
        scene.world.server.behave(Behaviour.ANSWER)


def test_a_server_with_errors_is_asked_again(scene: Scene) -> None:
    scene.world.server.behave(Behaviour.SERVER_ERROR)

    with scene.trouble("HTTP 500"):
        scene.world.server.behave(Behaviour.ANSWER)


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(scene: Scene) -> None:
    before = scene.world.server.behave(Behaviour.RATE_LIMITED)
    started = time.monotonic()

    with scene.trouble("HTTP 429"):
        probes = (time.monotonic() - started) / RETRY_AFTER_SECONDS
        asked = scene.world.server.calls() - before
        assert asked <= KNOWN_ITEMS + NEW_ITEMS + probes
        scene.world.server.behave(Behaviour.ANSWER)


def test_a_server_that_comes_back_with_another_model_is_refused(scene: Scene) -> None:
    scene.world.server.kill()
    scene.world.server.start(model=OTHER_MODEL)

    with scene.trouble(f"serves {OTHER_MODEL}, declared is {MODEL}"):
        scene.world.server.kill()
        scene.world.server.start()


def _reason(lane: LaneProcess) -> str:
    return str(lane.readiness()["reasons"].get("vllm", ""))


def _circuit(lane: LaneProcess) -> float:
    return lane.metric('freshet_circuit_open{dependency="vllm"')


def _closings(lane: LaneProcess) -> int:
    return lane.log.read_text().count('"circuit_closed"')


def _eventually(predicate, timeout: float = 30.0) -> None:
    wait_until_blocking(predicate, timeout=timeout, interval=0.1)
