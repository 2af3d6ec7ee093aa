"""Dead letters on a real broker: listed by reason and time, replayed once, as they were."""

import base64
import json
import time

import pytest
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from schemas.behaviour import (
    BehaviourBatch,
    BehaviourLimits,
    UserBehaviour,
    behaviour_headers,
    decode_behaviour,
    encode_behaviour,
)
from schemas.dead_letter import DeadLetter
from schemas.errors import ConfigurationError
from schemas.reasons import Reason
from streams import topic_admin
from streams.dead_letters import list_letters, replay
from streams.engine.lane import Record
from streams.lanes.behaviour_news import letter_of
from streams.settings import KafkaSettings
from tests.cli_runner import run_freshet
from tests.stack import read_topic

HOUR_MS = 3_600_000


@pytest.fixture
def settings(kafka, topic_prefix) -> KafkaSettings:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=2
    )
    topic_admin.apply(settings)
    return settings


@pytest.fixture
def bury(settings):
    """A function that puts a record among the dead letters of the items lane."""
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)

    def buried(
        value: bytes | None,
        reason: Reason = Reason.NOT_JSON,
        *,
        key: bytes | None = b"item:42",
        headers: tuple[tuple[str, bytes], ...] = (),
        age_ms: int = 0,
        partition: int = 1,
        lane: str = "items",
        source: str = "catalog.items",
        detail: str = "for the test",
    ) -> None:
        at_ms = time.time_ns() // 1_000_000 - age_ms
        letter = DeadLetter(
            key=key,
            value=value,
            headers=headers,
            reason=reason,
            detail=detail,
            stage="decode",
            attempts=1,
            first_seen_ms=at_ms,
            topic=f"{settings.topic_prefix}{source}",
            partition=partition,
            offset=7,
            group=f"{settings.topic_prefix}freshet.{lane}",
        ).cut_to_head()
        producer.send(
            f"{settings.topic_prefix}dead-letters.{lane}",
            key=letter.key,
            value=letter.value,
            headers=list(letter.all_headers()),
            timestamp_ms=at_ms,
        ).get(10)

    yield buried
    producer.close()


def _source(settings, topic: str = "catalog.items") -> list:
    return read_topic(settings.bootstrap_servers, f"{settings.topic_prefix}{topic}")


def test_the_newest_letters_are_listed_oldest_first(settings, bury) -> None:
    for index in range(5):
        bury(b"%d" % index)

    letters = list_letters(settings, "items", newest=2)

    assert [stored.letter.value for stored in letters if stored.letter] == [b"3", b"4"]
    assert [stored.offset for stored in letters] == [3, 4]


def test_letters_are_chosen_by_reason_and_by_time(settings, bury) -> None:
    bury(b"old", Reason.BAD_VERSION, age_ms=5 * HOUR_MS)
    bury(b"other", Reason.NOT_JSON)
    bury(b"new", Reason.BAD_VERSION)
    bury(b"another", Reason.NOT_JSON)

    def values(**choice) -> list[bytes | None]:
        found = list_letters(settings, "items", newest=None, **choice)
        return [stored.letter.value for stored in found if stored.letter]

    now_ms = time.time_ns() // 1_000_000
    assert values(reason=Reason.BAD_VERSION) == [b"old", b"new"]
    assert values(since_ms=now_ms - HOUR_MS) == [b"other", b"new", b"another"]
    assert values(reason=Reason.BAD_VERSION, since_ms=now_ms - HOUR_MS) == [b"new"]
    assert values(since_ms=now_ms + HOUR_MS) == []


def test_a_replayed_record_is_the_original_to_the_byte(settings, bury) -> None:
    headers = (("ce_type", b"freshet.item.upserted"), ("x", b"\xff\x00"), ("x", b"twice"))
    bury(b"\x00not json\xff", headers=headers, age_ms=HOUR_MS)

    report = replay(settings, "items")

    (record,) = _source(settings)
    assert (report.replayed, report.by_reason) == (1, {"not_json": 1})
    assert report.by_topic == {f"{settings.topic_prefix}catalog.items": 1}
    assert (record.key, record.value) == (b"item:42", b"\x00not json\xff")
    assert tuple(record.headers) == headers
    assert time.time() - record.timestamp / 1000 == pytest.approx(3600, abs=60)


def test_a_record_without_a_key_goes_back_to_its_partition(settings, bury) -> None:
    for _ in range(5):
        bury(b"x", Reason.NULL_KEY, key=None, partition=1)
    bury(None, Reason.NULL_VALUE, key=b"item:42")

    report = replay(settings, "items")

    records = _source(settings)
    assert report.replayed == 6
    assert {record.partition for record in records if record.key is None} == {1}
    assert [record.value for record in records if record.key] == [None]


def test_an_event_of_a_batch_goes_back_alone_to_its_users_partition(settings, bury) -> None:
    limits = BehaviourLimits(frozenset({"view"}))
    events = [
        UserBehaviour(user_id=str(n), event_id=f"e{n}", item_id="42", action=action)
        for n, action in enumerate(["view", "hum", "view", "hum", "hum"])
    ]
    batch = BehaviourBatch(events=tuple(events))
    headers = tuple(behaviour_headers(batch, source="/test", id_="1"))
    record = Record(
        f"{settings.topic_prefix}user.behaviour",
        0,
        7,
        b"user:0",
        encode_behaviour(batch),
        headers,
        1,
    )
    decoded = decode_behaviour(
        record.key, record.value, record.headers, timestamp_ms=1, now_ms=1, limits=limits
    )
    for refused in decoded.refused:
        letter = letter_of(refused, record, stage="decode", group="g", now_ms=1)
        bury(
            letter.value,
            letter.reason,
            key=letter.key,
            headers=letter.headers,
            partition=letter.partition,
            lane="behaviour",
            source="user.behaviour",
            detail=letter.detail,
        )

    report = replay(settings, "behaviour")

    mended = BehaviourLimits(frozenset({"view", "hum"}))
    assert report.by_topic == {f"{settings.topic_prefix}user.behaviour": 3}
    users = []
    for sent in _source(settings, "user.behaviour"):
        (event,) = decode_behaviour(
            sent.key,
            sent.value,
            sent.headers,
            timestamp_ms=sent.timestamp,
            now_ms=sent.timestamp,
            limits=mended,
        ).events
        users.append(event.user.id)
        assert sent.partition == (murmur2(sent.key) & 0x7FFFFFFF) % 2
    assert sorted(users) == ["1", "3", "4"]


def test_old_records_get_a_time_that_retention_spares(settings, bury) -> None:
    bury(b"x", age_ms=25 * 24 * HOUR_MS)

    replay(settings, "items")

    (record,) = _source(settings)
    assert time.time() - record.timestamp / 1000 == pytest.approx(3 * 86_400, abs=60)


def test_a_letter_is_replayed_once_unless_asked_again(settings, bury) -> None:
    bury(b"1")
    bury(b"2")

    counts = [replay(settings, "items").replayed]
    bury(b"3")
    counts.append(replay(settings, "items").replayed)
    counts.append(replay(settings, "items").replayed)
    counts.append(replay(settings, "items", again=True).replayed)
    counts.append(replay(settings, "items").replayed)

    assert counts == [2, 1, 0, 3, 0]
    assert len(_source(settings)) == 6


def test_a_limit_goes_on_where_the_last_replay_ended(settings, bury) -> None:
    for index in range(5):
        bury(b"%d" % index)

    counts = [replay(settings, "items", limit=2).replayed for _ in range(4)]

    assert counts == [2, 2, 1, 0]
    assert sorted(record.value for record in _source(settings)) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_replay_of_one_reason_leaves_the_others_for_later(settings, bury) -> None:
    bury(b"a", Reason.NOT_JSON)
    bury(b"b", Reason.FAILS_ALONE)
    bury(b"c", Reason.NOT_JSON)

    first = replay(settings, "items", reason=Reason.FAILS_ALONE)
    again = replay(settings, "items", reason=Reason.FAILS_ALONE)
    rest = replay(settings, "items")

    assert (first.replayed, again.replayed) == (1, 0)
    assert rest.by_reason == {"not_json": 2}


def test_a_dry_run_counts_and_changes_nothing(settings, bury) -> None:
    bury(b"1")

    dry = replay(settings, "items", dry_run=True)

    assert (dry.replayed, dry.dry_run) == (1, True)
    assert _source(settings) == []
    assert replay(settings, "items").replayed == 1


def test_heads_and_foreign_records_are_counted_and_never_sent(settings, bury) -> None:
    bury(b"x" * 100_000, Reason.TOO_LARGE)
    bury(b"whole")
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    producer.send(f"{settings.topic_prefix}dead-letters.items", value=b"foreign").get(10)
    producer.close()

    report = replay(settings, "items")
    once_more = replay(settings, "items")

    assert (report.replayed, report.refused, report.foreign) == (1, 1, 1)
    assert (once_more.replayed, once_more.refused, once_more.foreign) == (0, 0, 0)
    assert [record.value for record in _source(settings)] == [b"whole"]


def test_a_lane_without_dead_letters_is_a_configuration_error(settings) -> None:
    with pytest.raises(ConfigurationError, match="freshet topics apply"):
        list_letters(settings, "encode.never-created")


def test_the_commands_show_and_replay_letters(capsys, monkeypatch, settings, bury) -> None:
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("FRESHET_KAFKA__TOPIC_PREFIX", settings.topic_prefix)
    bury(b"\xffoops", Reason.INVALID_UNICODE, key=b"item:[42]")

    shown = run_freshet(capsys, "dead-letters", "list", "items")
    as_json = run_freshet(capsys, "dead-letters", "list", "items", "--json")
    replayed = run_freshet(capsys, "dead-letters", "replay", "items")

    assert "invalid_unicode" in shown.out
    assert "item:[42]" in shown.out
    letter = json.loads(as_json.out)
    assert base64.b64decode(letter["value"]) == b"\xffoops"
    assert letter["source"]["offset"] == 7
    assert replayed.code == 0
    assert replayed.out.startswith("replayed 1 letters")
