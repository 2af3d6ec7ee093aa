"""The demo's feed: what is sent when, how versions grow, and that broken records are broken."""

import json
from collections import Counter
from pathlib import Path

import pytest

from deploy.demo.broken import MISTAKES, BrokenRecord, broken_records
from deploy.demo.films import (
    DATA_DIR,
    KNOWLEDGE_FILE,
    SUMMER_STARTS_MS,
    Season,
    read_season,
)
from deploy.demo.plans import HOUR_MS, FeedShape, Kind
from deploy.demo.schedule import FeedEvent, Schedule, build_schedule
from schemas.errors import InvalidInput
from schemas.events import ContentPolicy, DecodeLimits, ItemUpserted, decode_catalog_event
from streams.settings import DEFAULT_SEMANTIC_FIELDS

NOW_MS = SUMMER_STARTS_MS


@pytest.fixture(scope="module")
def season() -> Season:
    return read_season()


@pytest.fixture(scope="module")
def schedule(season: Season) -> Schedule:
    return build_schedule(season, seed=7, shape=FeedShape())


def events_of(schedule: Schedule) -> list[FeedEvent]:
    summer = [record for record in schedule.summer if isinstance(record, FeedEvent)]
    return [*schedule.back_catalogue, *summer]


def of_kind(schedule: Schedule, kind: Kind) -> list[FeedEvent]:
    return [event for event in events_of(schedule) if event.kind is kind]


def meaning_of(event: FeedEvent) -> dict[str, object]:
    """The fields that a lane would look at."""
    policy = ContentPolicy(frozenset(DEFAULT_SEMANTIC_FIELDS))
    upserted = ItemUpserted.model_validate(
        {"item_id": event.item_id, "version": event.version, "item": event.fields}
    )
    return dict(policy.content_of(upserted))


def test_the_data_is_whole_and_comes_with_its_licence(season: Season):
    films = {film.item_id for film in season.films}

    assert len(films) == 1_613
    assert len(season.ratings) == 80_293
    answers = [json.loads(line) for line in KNOWLEDGE_FILE.read_bytes().splitlines()]
    assert sorted(answer["item_id"] for answer in answers) == sorted(films)
    assert "Simon Dooms" in (DATA_DIR / "LICENSE").read_text()


def test_films_first_rated_in_the_summer_are_the_new_ones(season: Season, schedule: Schedule):
    assert len(schedule.back_catalogue) == 1_502
    assert len(of_kind(schedule, Kind.RELEASE)) == 111
    assert set(schedule.released_ms) == season.new_films()


def test_a_new_film_is_announced_one_hour_before_its_first_rating(
    season: Season, schedule: Schedule
):
    first_rated_ms = season.first_rated_ms()

    assert all(
        event.at_ms == first_rated_ms[event.item_id] - HOUR_MS
        for event in of_kind(schedule, Kind.RELEASE)
    )


def test_the_same_seed_gives_the_same_feed_and_another_seed_another(
    season: Season, schedule: Schedule
):
    again = build_schedule(season, seed=7, shape=FeedShape())
    other = build_schedule(season, seed=8, shape=FeedShape())

    assert again == schedule
    assert other != schedule


def test_the_feed_is_in_time_order(schedule: Schedule):
    times = [record.at_ms for record in schedule.summer]

    assert times == sorted(times)


def test_versions_grow_by_one_with_every_event_that_is_not_a_repetition(schedule: Schedule):
    versions: dict[str, list[int]] = {}
    for event in events_of(schedule):
        if event.kind not in (Kind.DUPLICATE, Kind.LATE):
            versions.setdefault(event.item_id, []).append(event.version)

    assert all(seen == list(range(1, len(seen) + 1)) for seen in versions.values())


def test_everything_a_real_feed_has_is_in_it(schedule: Schedule):
    counts = Counter(event.kind for event in events_of(schedule))

    assert counts[Kind.VOTES] > 1_000
    assert counts[Kind.CORRECTION] == 24
    assert counts[Kind.EDIT] == 4 * 30
    assert counts[Kind.DUPLICATE] == 60
    assert counts[Kind.LATE] >= 20
    assert counts[Kind.REMOVAL] == 8


def test_vote_counts_say_nothing_about_the_film(schedule: Schedule):
    before: dict[str, FeedEvent] = {}
    for event in events_of(schedule):
        if event.kind is Kind.VOTES:
            previous = before[event.item_id]
            assert event.fields != previous.fields
            assert meaning_of(event) == meaning_of(previous)
            assert not event.is_news
        if event.kind not in (Kind.DUPLICATE, Kind.LATE):
            before[event.item_id] = event


def test_corrections_restore_the_title_that_was_misspelt(season: Season, schedule: Schedule):
    titles = {film.item_id: film.title for film in season.films}
    first = {event.item_id: event for event in reversed(events_of(schedule))}

    for event in of_kind(schedule, Kind.CORRECTION):
        announced = first[event.item_id].fields
        assert event.fields is not None
        assert announced is not None
        assert event.fields["title"] == titles[event.item_id]
        assert announced["title"] != titles[event.item_id]


def test_a_burst_ends_with_the_whole_cast_within_seconds_and_only_its_end_is_news(
    season: Season, schedule: Schedule
):
    casts = {film.item_id: list(film.actors) for film in season.films}
    bursts: dict[str, list[FeedEvent]] = {}
    for event in of_kind(schedule, Kind.EDIT):
        bursts.setdefault(event.item_id, []).append(event)

    assert len(bursts) == 4
    for item_id, edits in bursts.items():
        assert edits[-1].at_ms - edits[0].at_ms < 30_000
        assert [edit.is_news for edit in edits] == [False] * 29 + [True]
        assert edits[-1].fields is not None
        assert edits[-1].fields["actors"] == casts[item_id]
        assert len({str(meaning_of(edit)["actors"]) for edit in edits[1:]}) > 20


def test_every_film_ends_as_the_catalogue_has_it_or_removed(season: Season, schedule: Schedule):
    films = {film.item_id: dict(film.fields) for film in season.films}
    last: dict[str, FeedEvent] = {}
    for event in events_of(schedule):
        if event.kind not in (Kind.DUPLICATE, Kind.LATE):
            last[event.item_id] = event

    removed = {item_id for item_id, event in last.items() if event.fields is None}
    assert removed == schedule.removed
    for item_id, event in last.items():
        if event.fields is not None:
            assert {k: v for k, v in event.fields.items() if k != "votes"} == films[item_id]


def test_removed_films_are_old_ones_that_nobody_rates_later(season: Season, schedule: Schedule):
    last_rated_ms = season.last_rated_ms()

    for event in of_kind(schedule, Kind.REMOVAL):
        assert event.item_id not in schedule.released_ms
        assert event.at_ms > last_rated_ms[event.item_id]


def test_an_old_record_of_every_removed_film_comes_after_its_removal(schedule: Schedule):
    removed: set[str] = set()
    called_back: set[str] = set()
    for event in events_of(schedule):
        if event.kind is Kind.REMOVAL:
            removed.add(event.item_id)
        if event.kind is Kind.LATE and event.item_id in removed:
            assert event.fields is not None
            called_back.add(event.item_id)

    assert called_back == removed


@pytest.mark.parametrize(
    "record", broken_records(["tt1", "tt2"], range(MISTAKES)), ids=lambda record: record.reason
)
def test_every_broken_record_is_refused_for_its_own_reason(record: BrokenRecord):
    with pytest.raises(InvalidInput) as refusal:
        decode_catalog_event(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=NOW_MS,
            now_ms=NOW_MS,
            limits=DecodeLimits(),
        )

    assert refusal.value.reason is record.reason


def test_every_sound_event_is_accepted(schedule: Schedule):
    for event in of_kind(schedule, Kind.EDIT):
        assert meaning_of(event)["title"]


def test_a_smaller_season_keeps_new_and_old_films_and_some_of_everything(season: Season):
    small = season.smaller(64)

    schedule = build_schedule(small, seed=1, shape=FeedShape().scaled(64 / 1_613))

    counts = Counter(event.kind for event in events_of(schedule))
    assert len(small.films) == 64
    assert len(schedule.released_ms) == 8
    assert all(counts[kind] > 0 for kind in Kind)


def test_the_data_is_read_from_the_files_that_are_named(tmp_path: Path, season: Season):
    catalog = tmp_path / "catalog.jsonl"
    lines = (DATA_DIR / "catalog.jsonl").read_bytes().splitlines(keepends=True)
    catalog.write_bytes(b"".join(lines[:10]))

    few = read_season(catalog)

    assert [film.item_id for film in few.films] == [film.item_id for film in season.films[:10]]
    assert {rating.item_id for rating in few.ratings} == {film.item_id for film in few.films}
