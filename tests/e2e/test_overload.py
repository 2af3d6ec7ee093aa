"""A burst of new items that the language model has no time for, on real processes.

Every item is rankable from its content at once, is told a little about within a bound, and gets
knowledge of its own as the server has time, whoever is killed meanwhile.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas.entities import EntityKey, Stage
from streams.lag import read_lag
from tests.delivery import (
    Traffic,
    assert_commits_are_covered,
    assert_vectors_follow,
    stored_documents,
)
from tests.deployment import Deploy, Deployment, LaneProcess
from tests.fakes.paced_vllm_server import PacedServerProcess
from tests.feed import TITLES, FeedEvent
from tests.stack import wait_until_blocking
from workers.live.live_vectors import LiveVectors

pytestmark = pytest.mark.timeout(420)

ITEMS, GROUPS, OVERLOAD_SECONDS = 200, 8, 2.0
PLACES = 2
CALL_SECONDS = 30.0
KNOWN = EntityKey.item("known")
COLLECTIVE_WITHIN_SECONDS = 90.0
"""Eight calls about one item are under way by then; some 25 about up to twelve follow, one
in two seconds."""

QUEUE_AGE_SECONDS = 60.0
"""One by one, at two a second, it would be 100."""

SHARED_CALLS = 'freshet_writer_calls_total{lane="knowledge",reason="shared"}'
TOLD = 'freshet_records_total{lane="knowledge",outcome="emitted",reason="collective"}'
DEFERRED = 'freshet_records_total{lane="knowledge",outcome="emitted",reason="deferred"}'

LARGE_ITEMS, LONGEST_WAIT_SECONDS = 300, 16.0
"""Calls about twelve, one in two seconds, would take 50 seconds and more."""


@dataclass(slots=True)
class World:
    """A deployment with groups in use, and the server that it asks."""

    deployment: Deployment
    server: PacedServerProcess
    lanes: dict[str, LaneProcess]
    items: int
    keys: Sequence[EntityKey] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [EntityKey.item(f"b{n:03d}") for n in range(self.items)]

    def send(self, feed: Sequence[FeedEvent]) -> None:
        """Send events as fast as may be; returns once all are acknowledged."""
        traffic = Traffic(self.deployment, feed, per_second=5_000)
        traffic.start()
        traffic.finish()

    def burst(self) -> None:
        """Send all items at once, and an edit of the one that is known."""
        self.send(
            [
                *(FeedEvent(key.id, 1, _title(n, key.id), 0) for n, key in enumerate(self.keys)),
                FeedEvent(KNOWN.id, 2, "Amber Road, restored", 0),
            ]
        )

    def stages(self, keys: Sequence[EntityKey] | None = None) -> list[Stage]:
        """Return what rankers read of the burst's items, or of others."""
        live = LiveVectors(self.deployment.redis_url, key_prefix=self.deployment.prefix)
        with live.pin() as view:
            found = view.get([str(key) for key in keys or self.keys])
        return [Stage(stage) for stage in found.stages]

    def wait_for(self, stage: Stage, *, timeout: float) -> float:
        """Wait until every item of the burst is at least there; return the seconds it took."""
        started = time.monotonic()
        wait_until_blocking(
            lambda: all(found >= stage for found in self.stages()), timeout=timeout, interval=0.25
        )
        return time.monotonic() - started

    def waiting_requests(self) -> int:
        """Return how many requests were not settled yet."""
        lag = read_lag(self.deployment.settings.kafka, ["knowledge"])
        return sum(one.records for one in lag.by_lane())

    def explained(self, key: EntityKey) -> list[tuple[str, str]]:
        """Return how records of the entity ended in the lane of knowledge: outcome, reason."""
        done = self.deployment.freshet("explain", str(key), "--json")
        assert done.returncode == 0, done.stderr
        return [
            (entry["outcome"], entry["reason"])
            for entry in json.loads(done.stdout)["outcomes"]
            if entry["lane"] == "knowledge"
        ]

    def assert_all_have_their_own(self) -> None:
        """Assert that all of it came to its end: knowledge about every item, and its vectors."""
        self.server.answer(400, places=8)
        self.wait_for(Stage.INDIVIDUAL, timeout=120)
        self.deployment.wait_settled()
        keys = [*self.keys, KNOWN]
        documents = stored_documents(self.deployment, keys)
        for document in documents:
            assert document.content is not None
            assert document.individual is not None
            assert document.individual.version == document.content.version
            assert document.individual.provenance.group is None
        assert_vectors_follow(self.deployment, list(zip(keys, documents, strict=True)))
        for name in self.lanes:
            dead = self.deployment.prefix + f"dead-letters.{name}"
            assert self.deployment.records(dead) == []


@contextmanager
def _world(
    deploy: Deploy, folder: Path, *, items: int = ITEMS, longest_wait_seconds: float = 1e6
) -> Iterator[World]:
    with PacedServerProcess(answers_per_second=100, places=PLACES) as server:
        deployment = deploy(
            environment={
                "FRESHET_KNOWLEDGE__WRITER": "vllm",
                "FRESHET_KNOWLEDGE__MODEL": "a-model",
                "FRESHET_KNOWLEDGE__VLLM_URL": server.url,
                "FRESHET_KNOWLEDGE__VLLM_ACCEPTS_PRIORITY": "true",
                "FRESHET_KNOWLEDGE__IN_FLIGHT": str(2 * PLACES),
                "FRESHET_KNOWLEDGE__CALL_SECONDS": str(CALL_SECONDS),
                "FRESHET_KNOWLEDGE__OVERLOAD_SECONDS": str(OVERLOAD_SECONDS),
                "FRESHET_KNOWLEDGE__LONGEST_WAIT_SECONDS": str(longest_wait_seconds),
                "FRESHET_GROUPS__DIR": str(folder / "groups"),
            }
        )
        _activate_groups(deployment, folder)
        world = World(deployment, server, deployment.start_all(timeout=180), items)
        world.send([FeedEvent(KNOWN.id, 1, "Amber Road", 0)])
        wait_until_blocking(lambda: world.stages([KNOWN]) == [Stage.INDIVIDUAL], timeout=60)
        server.answer(2, places=PLACES)
        yield world


def _activate_groups(deployment: Deployment, folder: Path) -> None:
    catalogue = folder / "groups-catalog.jsonl"
    lines = [{"item_id": f"g{n}", "title": _title(n, f"g{n}")} for n in range(64)]
    catalogue.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for arguments in (
        ("build", "films", "--catalog", str(catalogue), "--groups", str(GROUPS)),
        ("activate", "films"),
    ):
        done = deployment.freshet("groups", *arguments)
        assert done.returncode == 0, done.stderr


def _title(number: int, id_: str) -> str:
    return f"{TITLES[number % 4]} {id_}"


def test_a_burst_is_live_at_once_and_collective_within_a_bound(
    deploy: Deploy, tmp_path: Path
) -> None:
    with _world(deploy, tmp_path) as world:
        lane = world.lanes["knowledge"]
        calls_before = world.server.calls()
        oldest: list[float] = []

        def are_collective() -> bool:
            oldest.append(lane.metric("freshet_oldest_open_record_seconds"))
            return all(stage >= Stage.COLLECTIVE for stage in world.stages())

        world.burst()
        world.wait_for(Stage.CONTENT, timeout=60)
        assert set(world.stages()) != {Stage.INDIVIDUAL}
        wait_until_blocking(are_collective, timeout=COLLECTIVE_WITHIN_SECONDS, interval=0.25)

        stages = world.stages()
        assert stages.count(Stage.COLLECTIVE) > ITEMS / 2
        assert Stage.INDIVIDUAL in stages
        assert max(oldest) < QUEUE_AGE_SECONDS
        calls = world.server.calls() - calls_before
        assert calls < ITEMS / 4
        wait_until_blocking(lambda: ("emitted", "deferred") in world.explained(KNOWN), timeout=30)
        assert world.stages([KNOWN]) == [Stage.INDIVIDUAL], "its last good knowledge stays"
        served = world.keys[stages.index(Stage.COLLECTIVE)]
        assert ("emitted", "collective") in world.explained(served)
        shared = lane.metric(SHARED_CALLS)
        saved = lane.metric('freshet_writer_calls_saved_total{lane="knowledge",why="shared"}')
        assert 0 < shared < ITEMS / 5
        assert shared + saved >= stages.count(Stage.COLLECTIVE)
        (document,) = stored_documents(world.deployment, [served])
        assert document.collective is not None
        assert set(document.collective.factors) == {"genre", "acclaim"}
        assert document.collective.provenance.group is not None

        world.assert_all_have_their_own()
        # One call an item, and the shared ones; of the backlog's, a few gave way and came again.
        assert world.server.calls() - calls_before <= ITEMS + 1 + shared + 2 * PLACES


def test_no_request_waits_longer_than_it_may_though_the_lane_is_killed_and_nothing_is_lost(
    deploy: Deploy, tmp_path: Path
) -> None:
    with _world(
        deploy, tmp_path, items=LARGE_ITEMS, longest_wait_seconds=LONGEST_WAIT_SECONDS
    ) as world:
        ages: list[float] = []

        def found(metric: str) -> float:
            lane = world.lanes["knowledge"]
            ages.append(lane.metric("freshet_oldest_open_record_seconds"))
            return lane.metric(metric)

        world.burst()
        for is_time in (
            lambda: found(TOLD) > 0,
            lambda: found(DEFERRED) > 0,  # while the others are deferred, too
        ):
            wait_until_blocking(is_time, timeout=60, interval=0.02)
            world.lanes["knowledge"].kill()
            assert_commits_are_covered(world.deployment, "knowledge")
            world.lanes |= world.deployment.start_all("knowledge")

        world.wait_for(Stage.CONTENT, timeout=60)
        wait_until_blocking(
            lambda: found(DEFERRED) >= 0 and world.waiting_requests() == 0, timeout=60
        )
        assert max(ages) < LONGEST_WAIT_SECONDS + CALL_SECONDS
        stages = world.stages()
        assert stages.count(Stage.CONTENT) > LARGE_ITEMS / 6, "the server has no time for more"
        assert stages.count(Stage.COLLECTIVE) > 0
        assert_commits_are_covered(world.deployment, "knowledge")

        world.assert_all_have_their_own()
