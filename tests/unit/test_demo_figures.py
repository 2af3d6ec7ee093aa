"""What the demo makes of what it saw: figures, tables, the JSON object, and its display."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pytest
from rich.console import Console, RenderableType

from deploy.demo import kept
from deploy.demo.board import Board
from deploy.demo.cold_start import content_as_seen, figures, film_vectors, next_nightly_ms
from deploy.demo.display import line, page
from deploy.demo.films import SUMMER_STARTS_MS, Rating
from deploy.demo.interrupts import Interrupted, Interrupts
from deploy.demo.lane_processes import CallCost, LaneFigures, read_figures
from deploy.demo.llm_counts import LlmCounts, ModelFigures, llm_counts
from deploy.demo.plans import DAY_MS, HOUR_MS, Kind
from deploy.demo.schedule import FeedEvent, Schedule
from deploy.demo.summary import Result, percentiles, tables
from deploy.demo.user_figures import HitRate, UserFigures
from deploy.demo.user_plans import Act, UserEvent
from deploy.demo.watch import Sighting, Vector, Watcher
from schemas.entities import Stage
from streams.lanes.knowledge_stats import Cost, KnowledgeStats
from streams.metrics import LaneMetrics
from tests.stack import wait_until_blocking
from workers.evaluation.cold_start import ColdStartFigures, UserVectors
from workers.live.vectors import Vectors

T0 = SUMMER_STARTS_MS


def an_event(
    item_id: str = "tt1",
    version: int = 1,
    kind: Kind = Kind.RELEASE,
    at_ms: int = T0,
) -> FeedEvent:
    fields = None if kind is Kind.REMOVAL else {"title": "A film"}
    return FeedEvent(at_ms, kind, item_id, version, fields, is_news=True)


def a_sighting(
    event: FeedEvent,
    stage: Stage,
    vector_stage: Stage | None = None,
    freshness_ms: float = 20.0,
) -> Sighting:
    vector = np.ones(2, np.float32)
    return Sighting(event, stage, freshness_ms, 0.0, vector, vector_stage or stage)


def a_schedule(ratings: list[Rating], released_ms: dict[str, int]) -> Schedule:
    return Schedule((), (), (), released_ms, frozenset(), frozenset(), tuple(ratings))


def figures_of(
    schedule: Schedule,
    seen: list[Sighting],
    live: Mapping[str, Vector],
    content: Mapping[str, Vector],
    users: Mapping[tuple[str, str], Vector] | None = None,
) -> dict[str, ColdStartFigures]:
    films = film_vectors(schedule, seen, live, content)
    return figures(schedule, films, UserVectors(users or {}, {}))


def a_result(**changes: Any) -> Result:
    figures_ = ColdStartFigures(10, 0.12345678, 0.2, 0.5, 0.8, None)
    facts: dict[str, Any] = {
        "seconds": 100.04,
        "events": 3_617,
        "items_live": {"content": 0, "collective": 0, "individual": 1_605},
        "freshness_ms": {"content": [10.0, 20.0, 30.0], "individual": []},
        "llm": LlmCounts(5, 6, 7),
        "dead_letters": {"not_json": 2},
        "lag": {"items": 0},
        "cold_start": {"nightly": figures_, "content": figures_, "live": figures_},
        "users": UserFigures(
            3, [5.0, 7.0], {1: HitRate(2, 0.5), 2: HitRate(0, None)}, 9, 1, 2, 8.0
        ),
        "preferences": {"asked_first": 2, "asked_drift": 1, "too_few_events": 4},
        "load_seconds": {"content": 1.5},
        "sent": {"catalog": 3},
        "items_outcomes": {"emitted": 3},
    }
    return Result(**{**facts, **changes})


USERS = UserFigures(
    new=3,
    rankable_ms=[5.0, 7.0],
    hr100_after={1: HitRate(2, 0.5), 2: HitRate(0, None)},
    read=9,
    stale=1,
    waited=2,
    longest_wait_ms=8.0,
)


class FakeReader:
    """A LiveVectors of one film's vector, which a test changes."""

    def __init__(self) -> None:
        self.stage, self.content, self.factors = Stage.NONE, -1, -1
        self.looks = 0

    @contextmanager
    def pin(self) -> Iterator[Self]:
        yield self

    def get(self, keys: Sequence[str]) -> Vectors:
        self.looks += 1
        n = len(keys)
        return Vectors(
            space="s",
            values=np.zeros((n, 2), np.float16),
            found=np.full(n, self.stage is not Stage.NONE),
            stages=np.full(n, int(self.stage), np.uint8),
            content_versions=np.full(n, self.content),
            factors_versions=np.full(n, self.factors),
            revs=np.zeros(n, np.int64),
            event_times_ms=np.zeros(n, np.int64),
            written_at_ms=np.zeros(n, np.int64),
            ages_ms=np.zeros(n, np.int64),
        )

    def looked_again(self) -> bool:
        before = self.looks
        wait_until_blocking(lambda: self.looks > before + 1)
        return True


def test_each_stage_of_an_event_is_seen_when_its_version_is_reached():
    reader = FakeReader()
    with Watcher(reader) as watcher:
        watcher.expect(an_event(version=2), 0.0)
        reader.stage, reader.content = Stage.CONTENT, 1
        assert reader.looked_again()
        assert len(watcher.sightings) == 0

        reader.content = 2
        wait_until_blocking(lambda: len(watcher.sightings) == 1)
        reader.stage, reader.factors = Stage.INDIVIDUAL, 1
        assert reader.looked_again()
        assert watcher.pending == 1
        reader.factors = 3
        wait_until_blocking(lambda: not watcher.pending)

    assert [sighting.stage for sighting in watcher.sightings] == [Stage.CONTENT, Stage.INDIVIDUAL]
    assert watcher.live()["individual"] == 1


def test_knowledge_that_is_not_sure_to_come_is_looked_out_for_and_not_waited_for():
    reader = FakeReader()
    with Watcher(reader, knowledge_is_sure=False) as watcher:
        watcher.expect(an_event(version=2), 0.0)
        assert watcher.pending == 1
        reader.stage, reader.content = Stage.CONTENT, 2
        wait_until_blocking(lambda: not watcher.pending)
        unseen = watcher.unseen()
        reader.stage, reader.factors = Stage.INDIVIDUAL, 2
        wait_until_blocking(lambda: len(watcher.sightings) == 2)

    assert unseen == []
    assert watcher.sightings[1].stage is Stage.INDIVIDUAL


def test_a_removal_is_seen_when_the_vector_is_gone_and_named_until_then():
    reader = FakeReader()
    reader.stage, reader.content = Stage.CONTENT, 1
    with Watcher(reader) as watcher:
        watcher.expect(an_event(version=2, kind=Kind.REMOVAL), 0.0)
        assert reader.looked_again()
        unseen = watcher.unseen()
        reader.stage = Stage.NONE
        wait_until_blocking(lambda: not watcher.pending)

    assert unseen == ["tt1 version 2 (removal): not seen as none"]
    assert watcher.sightings[0].stage is Stage.NONE
    assert watcher.unseen() == []


def test_the_next_nightly_run_is_at_four_in_the_morning():
    assert next_nightly_ms(T0) == T0 + 4 * HOUR_MS
    assert next_nightly_ms(T0 + 4 * HOUR_MS) == T0 + 4 * HOUR_MS
    assert next_nightly_ms(T0 + 4 * HOUR_MS + 1) == T0 + DAY_MS + 4 * HOUR_MS


def test_nightly_vectors_miss_the_ratings_before_the_night_and_live_ones_do_not():
    likes = [Rating(T0 - DAY_MS + n, "u", f"old{n}", 9) for n in range(5)]
    first = Rating(T0 + 12 * HOUR_MS, "u", "tt1", 9)
    announced = an_event(at_ms=first.at_ms - HOUR_MS)
    seen = [a_sighting(announced, Stage.CONTENT), a_sighting(announced, Stage.INDIVIDUAL)]
    live = {f"old{n}": np.array([1.0, n / 10]) for n in range(5)} | {"tt1": np.array([1.0, 0.2])}

    found = figures_of(
        a_schedule([*likes, first], {"tt1": announced.at_ms}),
        seen,
        live,
        {"tt1": np.array([0.0, 1.0])},
        {("u", "tt1"): np.array([1.0, 0.1])},
    )

    assert list(found) == ["nightly", "content", "live"]
    assert found["nightly"].missed == 1.0
    assert found["live"].missed == 0.0
    assert found["live"].n == 1


def test_a_user_of_whom_nothing_was_read_is_missed_live_alone():
    likes = [Rating(T0 - DAY_MS + n, "u", f"old{n}", 9) for n in range(5)]
    rating = Rating(T0 + HOUR_MS, "u", "tt1", 9)
    seen = [a_sighting(an_event(at_ms=T0), Stage.CONTENT)]
    live = {f"old{n}": np.ones(2) for n in range(5)} | {"tt1": np.ones(2)}

    found = figures_of(a_schedule([*likes, rating], {"tt1": T0}), seen, live, live)

    assert found["live"].missed == 1.0
    assert found["content"].missed == 0.0


def test_freshness_is_not_multiplied_by_the_speed_up():
    likes = [Rating(T0 - DAY_MS + n, "u", f"old{n}", 9) for n in range(5)]
    rating = Rating(T0 + HOUR_MS, "u", "tt1", 9)
    announced = an_event(at_ms=T0)
    live = {f"old{n}": np.ones(2) for n in range(5)} | {"tt1": np.ones(2)}
    schedule = a_schedule([*likes, rating], {"tt1": T0})

    def missed(freshness_ms: float) -> float | None:
        seen = [a_sighting(announced, Stage.INDIVIDUAL, freshness_ms=freshness_ms)]
        users = {("u", "tt1"): np.ones(2)}
        return figures_of(schedule, seen, live, {}, users)["live"].missed

    assert missed(HOUR_MS - 1) == 0.0
    assert missed(HOUR_MS + 1) == 1.0


def test_a_film_without_knowledge_is_live_with_its_content_vector():
    likes = [Rating(T0 - DAY_MS + n, "u", f"old{n}", 9) for n in range(5)]
    first = Rating(T0 + 12 * HOUR_MS, "u", "tt1", 9)
    seen = [a_sighting(an_event(at_ms=first.at_ms - HOUR_MS), Stage.CONTENT)]
    live = {f"old{n}": np.array([1.0, n / 10]) for n in range(5)} | {"tt1": np.array([1.0, 0.2])}

    found = figures_of(
        a_schedule([*likes, first], {"tt1": T0}),
        seen,
        live,
        {"tt1": np.array([1.0, 0.2])},
        {("u", "tt1"): np.array([1.0, 0.2])},
    )

    assert (found["content"].missed, found["live"].missed) == (0.0, 0.0)


def test_content_vectors_are_those_that_were_read_before_there_was_knowledge():
    read, hidden = an_event("tt1"), an_event("tt2")
    edited = an_event("tt1", version=2, kind=Kind.CORRECTION)

    before_the_edit = content_as_seen([a_sighting(read, Stage.CONTENT)])
    after_the_edit = content_as_seen(
        [
            a_sighting(read, Stage.CONTENT),
            a_sighting(edited, Stage.CONTENT, vector_stage=Stage.INDIVIDUAL),
            a_sighting(hidden, Stage.CONTENT, vector_stage=Stage.INDIVIDUAL),
        ]
    )

    assert list(before_the_edit) == ["tt1"]
    assert after_the_edit == {}


def test_a_lane_s_figures_are_read_from_its_metrics_page():
    metrics = LaneMetrics("items")
    metrics.records.labels("items", "emitted", "new").inc(3)
    metrics.records.labels("items", "emitted", "changed").inc(2)
    metrics.records.labels("items", "dead_lettered", "not_json").inc()
    _, text = metrics.exposition()

    found = read_figures("items", text.decode())

    assert found.outcomes == {"emitted": 5, "dead_lettered": 1}
    assert found.emitted == {"new": 3, "changed": 2}
    assert found.refused == {"not_json": 1}
    assert found.settled == 6


def test_what_the_gate_of_users_decided_is_read_too():
    page = (
        "# TYPE freshet_preference_decisions counter\n"
        'freshet_preference_decisions_total{lane="behaviour",why="asked_first"} 3\n'
        'freshet_preference_decisions_total{lane="behaviour",why="too_soon"} 5\n'
    )

    assert read_figures("behaviour", page).preferences == {"asked_first": 3, "too_soon": 5}


def test_calls_saved_are_those_of_a_consumer_that_answers_every_event_with_one():
    lanes = {
        "items": LaneFigures("items", {"confirmed": 10, "unchanged": 2, "superseded": 5}),
        "knowledge": LaneFigures("knowledge", calls=4, saved={"fingerprint": 1, "coalesced": 1}),
    }

    assert llm_counts(lanes) == LlmCounts(calls=4, saved_fingerprint=13, saved_coalesced=6)


def test_what_calls_cost_is_read_by_reason_and_summed_over_lanes():
    stats = KnowledgeStats()
    stats.costs["new"] = Cost(3, 300, 30)
    stats.costs["repair"] = Cost(2, 200, 20)
    stats.rejected["echo"] = 2
    metrics = LaneMetrics("knowledge")
    metrics.follow_writer("knowledge", stats)
    metrics.records.labels("knowledge", "emitted", "").inc()
    metrics.records.labels("knowledge", "emitted", "restamped").inc(5)
    _, text = metrics.exposition()

    lane = read_figures("knowledge", text.decode())
    both = llm_counts({"knowledge": lane, "knowledge-backlog": lane})

    assert lane.calls == 5
    assert both.costs == {"new": CallCost(6, 600, 60), "repair": CallCost(4, 400, 40)}
    assert (both.prompt_tokens, both.completion_tokens) == (1_000, 100)
    assert (both.accepted, both.refused) == (2, {"echo": 4})


def test_a_real_model_is_told_of_in_tables_and_in_json():
    model = ModelFigures("a-small-model", 123.45, 0.75)
    llm = LlmCounts(5, accepted=1, refused={"echo": 3}, costs={"new": CallCost(5, 100, 20)})

    result = a_result(model=model, llm=llm)

    found: dict[str, Any] = result.to_json()
    assert found["llm"]["server"] == {
        "model": "a-small-model",
        "tokens_per_second": 123.5,
        "prefix_hit_rate": 0.75,
    }
    assert found["llm"]["by_reason"]["new"]["completion_tokens"] == 20
    text = shown(tables(result))
    assert "a-small-model" in text
    assert "1; 3 refused: 3 echo" in text


def test_percentiles_of_nothing_are_nothing():
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles(list(range(101))) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_the_json_object_has_exactly_the_documented_keys():
    found: dict[str, Any] = a_result().to_json()

    assert list(found) == [
        "seconds",
        "events",
        "items_live",
        "freshness_ms",
        "llm",
        "dead_letters",
        "lag",
        "cold_start",
        "users",
    ]
    assert list(found["freshness_ms"]["content"]) == ["p50", "p95", "p99"]
    assert found["llm"] == {
        "calls": 5,
        "saved_fingerprint": 6,
        "saved_coalesced": 7,
        "saved_shared": 0,
        "accepted": 0,
        "refused": {},
        "by_reason": {},
        "server": None,
    }
    assert list(found["cold_start"]) == ["nightly", "content", "live"]
    assert found["cold_start"]["live"] == {
        "n": 10,
        "missed": 0.1235,
        "hr20": 0.2,
        "hr100": 0.5,
        "percentile": 0.8,
        "audience_auc": None,
    }
    assert found["users"] == {
        "new": 3,
        "rankable_ms": {"p50": 6.0, "p95": 6.9, "p99": 7.0},
        "hr100_after": {"1": {"n": 2, "hr100": 0.5}, "2": {"n": 0, "hr100": None}},
        "read": 9,
        "stale": 1,
        "knowledge": {
            "asked": 3,
            "reasons": {"asked_drift": 1, "asked_first": 2, "too_few_events": 4},
        },
    }


def shown(renderable: RenderableType, width: int = 120) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_tables_tell_what_the_json_object_tells_and_what_is_missing():
    text = shown(tables(a_result(unaccounted=["tt7 [brackets] version 3"], notes=["a note"])))

    assert "3,617 events in 100 s" in text
    assert "0.500 of 2 users" in text
    assert "3 times: 2 asked_first, 1 asked_drift" in text
    assert "4 too_few_events" in text
    assert "1,605 individual" in text
    assert "12.3%" in text
    assert "not accounted for: tt7 [brackets] version 3" in text
    assert "a note" in text


def test_the_display_shows_the_phase_the_counts_and_the_latest_news():
    board = Board({"tt1": "Les Misérables [2012]"})
    board.enter("Replaying the summer", to_send=4)
    board.sent(an_event(at_ms=T0 + DAY_MS))
    board.saw(a_sighting(an_event(), Stage.CONTENT, freshness_ms=12.0))
    items = LaneFigures("items", {"emitted": 7}, lag=3)
    board.sent(UserEvent(T0, T0, Act.RATING, "u", "tt1", 9))
    board.count({"content": 1, "individual": 2}, {"items": ("ready", items)}, [40.0, 42.0])

    for text in (line(board.snapshot()), shown(page(board.snapshot()))):
        assert "Replaying the summer" in text
        assert "5 June 2013" in text
        assert "2 individual" in text
        assert "12 ms" in text
        assert "2 new users" in text
        assert "41 ms" in text
        assert "3" in text.partition("lag")[2]
    assert "Les Misérables [2012]: released, rankable after 12 ms" in shown(page(board.snapshot()))


def test_an_event_that_was_held_back_does_not_turn_back_the_calendar():
    board = Board({})
    board.enter("Replaying the summer", to_send=2)

    board.sent(an_event(at_ms=T0 + DAY_MS))
    board.sent(an_event(at_ms=T0))

    assert board.snapshot().season_ms == T0 + DAY_MS


def test_loading_in_bulk_is_no_news_and_no_measure_of_freshness():
    board = Board({})
    board.saw(a_sighting(an_event(kind=Kind.CATALOG), Stage.CONTENT))

    assert board.snapshot().news == ()
    assert board.snapshot().freshness_ms["content"] == ()


def test_the_first_signal_interrupts_and_a_second_one_does_not():
    interrupts = Interrupts()

    with interrupts.catching():
        with pytest.raises(Interrupted) as raised:
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert raised.value.exit_code == 130


def test_a_signal_waits_for_the_end_of_what_is_shielded():
    interrupts = Interrupts()
    steps: list[str] = []

    def start_something() -> None:
        with interrupts.shielded():
            signal.raise_signal(signal.SIGTERM)
            steps.append("noted down")
        steps.append("never reached")

    with interrupts.catching(), pytest.raises(Interrupted) as raised:
        start_something()

    assert steps == ["noted down"]
    assert raised.value.exit_code == 143


def test_the_former_signal_handlers_come_back():
    former = signal.getsignal(signal.SIGTERM)

    with Interrupts().catching():
        assert signal.getsignal(signal.SIGTERM) is not former

    assert signal.getsignal(signal.SIGTERM) is former


def test_a_kept_demo_is_described_by_files_a_shell_can_read(tmp_path):
    kept.remember(tmp_path, {"items": 2**22 - 1}, {"FRESHET_REDIS__URL": "redis://h/0 x"})

    assert (tmp_path / "settings.sh").read_text() == "export FRESHET_REDIS__URL='redis://h/0 x'\n"
    assert not kept.is_running(tmp_path)
    kept.stop(tmp_path)
    assert list(tmp_path.iterdir()) == []
