"""The pages over real HTTP on a free port."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from streams.clock import SystemClock
from streams.health import BEAT_SECONDS, Health, HealthServer
from streams.metrics import LaneMetrics
from streams.vitals import Vitals


class Page:
    """Asks a server on the loopback interface."""

    def __init__(self, health: Health, port: int) -> None:
        self.health = health
        self.port = port
        self.now = 1_000.0

    def get(self, path: str) -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as page:
                return page.status, page.headers["Content-Type"], page.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()

    def json(self, path: str) -> tuple[int, dict[str, object]]:
        status, content_type, body = self.get(path)
        assert content_type == "application/json"
        return status, json.loads(body)


@pytest.fixture
def metrics() -> LaneMetrics:
    return LaneMetrics("items")


@pytest.fixture
def page(metrics: LaneMetrics) -> Iterator[Page]:
    pages: list[Page] = []
    health = Health("items", Vitals(), now=lambda: pages[0].now)
    server = HealthServer(health, metrics.exposition, host="127.0.0.1", port=0)
    server.start()
    pages.append(Page(health, server.port))
    yield pages[0]
    server.stop()


def started(page: Page) -> Vitals:
    page.health.starting.clear()
    vitals = page.health.vitals
    vitals.beat_at = page.now
    vitals.flowing = vitals.assigned = True
    return vitals


def test_while_it_starts_a_lane_is_alive_but_not_ready(page: Page) -> None:
    page.health.starting["kafka"] = "connection refused"

    assert page.json("/livez") == (200, {"lane": "items", "live": True})
    status, body = page.json("/readyz")
    assert status == 503
    assert body["reasons"] == {"lane": "starting", "kafka": "connection refused"}


def test_a_flowing_lane_is_ready(page: Page) -> None:
    started(page).open_records = 12

    assert page.json("/readyz") == (
        200,
        {
            "lane": "items",
            "ready": True,
            "reasons": {},
            "waits": {},
            "assigned": True,
            "open_records": 12,
        },
    )


def test_a_lane_that_waits_on_purpose_is_ready_and_says_what_for(page: Page) -> None:
    started(page).waits = {"admission": "3 requests wait at the server"}

    status, body = page.json("/readyz")
    assert (status, body["ready"], body["reasons"]) == (200, True, {})
    assert body["waits"] == {"admission": "3 requests wait at the server"}


def test_a_lane_without_partitions_is_ready_because_it_idles_on_purpose(page: Page) -> None:
    started(page).assigned = False

    status, body = page.json("/readyz")
    assert (status, body["assigned"]) == (200, False)


def test_holds_and_open_circuits_are_the_reasons_not_to_be_ready(page: Page) -> None:
    vitals = started(page)
    vitals.holds = {"redis": "rebuilding: partitions [3]"}
    vitals.circuits = {"vllm": "connection refused"}
    vitals.flowing = False

    status, body = page.json("/readyz")
    assert status == 503
    assert body["reasons"] == {
        "redis": "rebuilding: partitions [3]",
        "vllm": "connection refused",
    }
    assert page.json("/livez")[0] == 200, "restarting would not help"


def test_only_what_is_known_to_stand_in_the_way_excuses_a_stall() -> None:
    assert not Vitals().is_excused
    assert Vitals(holds={"a": "b"}).is_excused
    assert Vitals(circuits={"a": "b"}).is_excused
    assert Vitals(waits={"a": "b"}).is_excused


def test_what_a_lane_waits_for_is_a_metric(page: Page, metrics: LaneMetrics) -> None:
    vitals = started(page)
    metrics.follow_vitals("items", vitals, SystemClock())
    vitals.waits = {"admission": "3 requests wait at the server"}

    _, _, body = page.get("/metrics")
    assert b'freshet_waiting{lane="items",what="admission"} 1.0' in body


def test_a_rebalancing_lane_says_so(page: Page) -> None:
    started(page).flowing = False

    assert page.json("/readyz") == (
        503,
        {
            "lane": "items",
            "ready": False,
            "reasons": {"consumer": "rebalancing"},
            "waits": {},
            "assigned": True,
            "open_records": 0,
        },
    )


def test_a_loop_that_stopped_beating_is_neither_alive_nor_ready(page: Page) -> None:
    started(page)
    page.now += BEAT_SECONDS
    assert page.json("/livez")[0] == 200

    page.now += 0.1

    assert page.json("/livez") == (503, {"lane": "items", "live": False})
    status, body = page.json("/readyz")
    assert (status, body["reasons"]) == (503, {"loop": "no beat for 15 s"})


def test_metrics_are_exposed_as_prometheus_text(page: Page, metrics: LaneMetrics) -> None:
    metrics.records.labels("items", "written", "").inc(3)

    status, content_type, body = page.get("/metrics")

    assert status == 200
    assert content_type.startswith("text/plain")
    assert b'freshet_records_total{lane="items",outcome="written",reason=""} 3.0' in body


def test_a_query_does_not_change_the_page(page: Page) -> None:
    started(page)

    assert page.json("/readyz?verbose=1")[0] == 200


def test_any_other_page_names_those_there_are(page: Page) -> None:
    status, _, body = page.get("/")

    assert (status, body) == (404, b"/livez /readyz /metrics\n")


def test_a_stopped_server_answers_nobody(metrics: LaneMetrics) -> None:
    server = HealthServer(Health("items", Vitals()), metrics.exposition, host="127.0.0.1", port=0)
    server.start()
    page = Page(Health("items", Vitals()), server.port)
    server.stop()

    with pytest.raises(urllib.error.URLError):
        page.get("/livez")


def test_a_server_that_never_started_can_be_stopped(metrics: LaneMetrics) -> None:
    server = HealthServer(Health("items", Vitals()), metrics.exposition, host="127.0.0.1", port=0)

    server.stop()
