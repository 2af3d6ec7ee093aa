"""Bad input from users on a real broker: the lane says what it was, goes on, and nobody waits."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from schemas.behaviour import UserBehaviour
from schemas.dead_letter import HEAD_BYTES, DeadLetter
from schemas.entities import EntityKey
from schemas.reasons import Reason
from schemas.topics import Topic
from streams.topology import BEHAVIOUR
from tests.behaviour_delivery import (
    assert_user_vectors_follow,
    contents,
    dead_letters,
    stored_histories,
)
from tests.behaviour_feed import Step, behaviour_sender, expected_histories
from tests.delivery import Traffic
from tests.deployment import Deploy
from tests.shop import AT, Shop
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(240)

KEY = b"user:1"

OTHERS_WAIT_SECONDS = 5.0
"""On a busy machine; alone it is about a tenth of a second."""


def _body(**changes: object) -> bytes:
    return json.dumps({**_event("e1"), **changes}).encode()


def _event(event_id: str, **changes: object) -> dict[str, object]:
    event = {
        "type": "user.behaviour",
        "user_id": "1",
        "event_id": event_id,
        "item_id": "42",
        "action": "like",
        "occurred_at": AT.isoformat(),
    }
    return {**event, **changes}


def _without(field: str) -> bytes:
    event = _event("e1")
    del event[field]
    return json.dumps(event).encode()


def _batch(*events: object) -> bytes:
    return json.dumps({"type": "user.behaviour.batch", "events": events}).encode()


def _erasure(**changes: object) -> bytes:
    return json.dumps({"type": "user.erased", "user_id": "1", **changes}).encode()


INVALID: Sequence[tuple[str, bytes | None, bytes | None, Reason]] = (
    ("not JSON", KEY, b"{oops", Reason.NOT_JSON),
    ("a list", KEY, b"[1]", Reason.NOT_AN_OBJECT),
    ("a wrong type", KEY, _body(user_id=1), Reason.WRONG_TYPE),
    ("an unknown event", KEY, _body(type="user.eaten"), Reason.UNKNOWN_TYPE),
    ("no event id", KEY, _without("event_id"), Reason.MISSING_FIELD),
    ("an empty event id", KEY, _body(event_id=""), Reason.WRONG_TYPE),
    ("no item", KEY, _without("item_id"), Reason.MISSING_FIELD),
    ("an item of two words", KEY, _body(item_id="4 2"), Reason.INVALID_ID),
    ("an unknown action", KEY, _body(action="teleport"), Reason.UNKNOWN_ACTION),
    ("a rating without stars", KEY, _body(action="rate"), Reason.MISSING_FIELD),
    ("endless stars", KEY, _body(action="rate", value=float("inf")), Reason.NOT_FINITE),
    ("a null key", None, _body(), Reason.NULL_KEY),
    ("a wrong key", b"user:2", _body(), Reason.WRONG_KEY),
    ("a tombstone", KEY, None, Reason.NULL_VALUE),
    ("a far future", KEY, _body(occurred_at="2200-01-01T00:00:00Z"), Reason.FUTURE_TIME),
    ("before all time", KEY, _body(occurred_at="1969-01-01T00:00:00Z"), Reason.WRONG_TYPE),
    ("lone surrogates", KEY, _body(event_id="\ud800"), Reason.INVALID_UNICODE),
    ("not UTF-8", KEY, b'{"type": "\xff"}', Reason.INVALID_UNICODE),
    ("erased in the future", KEY, _erasure(occurred_at="2200-01-01T00:00Z"), Reason.FUTURE_TIME),
    ("erasing nobody", KEY, _erasure(user_id=""), Reason.INVALID_ID),
    ("an empty batch", KEY, _batch(), Reason.WRONG_TYPE),
    ("a batch without events", KEY, b'{"type": "user.behaviour.batch"}', Reason.MISSING_FIELD),
    ("a batch of nothing usable", KEY, _batch(1, {}), Reason.NOT_AN_OBJECT),
    ("3 MB", KEY, _body(padding="x" * 3_000_000), Reason.TOO_LARGE),
)


@pytest.fixture(scope="module")
def shop(deploy_for_all: Deploy) -> Iterator[Shop]:
    # One partition: whoever is in the way of others is in the way of all.
    deployment = deploy_for_all(partitions=1)
    deployment.start_all("items", "encode", BEHAVIOUR)
    with closing(Shop(deployment)) as shop:
        yield shop


def _letters(shop: Shop, expected: int) -> list[DeadLetter]:
    """Return the dead letters that nobody else sent, once there are so many."""

    def own() -> list[DeadLetter]:
        return [one for one in dead_letters(shop.deployment) if one.key != b"user:batched"]

    wait_until_blocking(lambda: len(own()) >= expected, timeout=30, interval=0.2)
    return own()


def test_every_kind_of_bad_input_ends_as_a_dead_letter_and_the_lane_goes_on(shop: Shop) -> None:
    topic = shop.deployment.prefix + Topic.USER_BEHAVIOUR
    shop.deployment.produce(Topic.USER_BEHAVIOUR, *((key, value) for _, key, value, _ in INVALID))
    shop.deployment.produce(Topic.USER_BEHAVIOUR, (KEY, _body(unknown_field={"a": [1]})))

    letters = _letters(shop, len(INVALID))
    assert [letter.reason for letter in letters] == [reason for *_, reason in INVALID]
    for letter, (name, key, value, reason) in zip(letters, INVALID, strict=True):
        whole = value[:HEAD_BYTES] if value and reason is Reason.TOO_LARGE else value
        assert letter.value == whole, name
        assert letter.key == key, name
        assert letter.topic == topic
    shop.deployment.wait_settled()
    (history,) = stored_histories(shop.deployment, "1").values()
    assert [event.item for event in history.events] == ["42"]


def test_a_bad_event_in_a_batch_takes_nobody_with_it_and_unknown_items_are_welcome(
    shop: Shop,
) -> None:
    deployment = shop.deployment
    events = [_event(f"b{number}", user_id="batched", item_id=f"{number}") for number in range(3)]
    events[1]["action"] = "teleport"
    events.append(_event("b9", user_id="neighbour", item_id="not-in-the-catalogue"))

    deployment.produce(Topic.USER_BEHAVIOUR, (b"user:batched", _batch(*events)))

    wait_until_blocking(lambda: stored_histories(deployment, "neighbour"), timeout=30)
    deployment.wait_settled()
    stored = stored_histories(deployment)
    batched = stored[EntityKey.parse("user:batched")]
    neighbour = stored[EntityKey.parse("user:neighbour")]
    assert {event.item for event in batched.events} == {"0", "2"}
    assert {event.item for event in neighbour.events} == {"not-in-the-catalogue"}
    assert not shop.has("user:neighbour")
    (letter,) = (one for one in dead_letters(deployment) if one.key == b"user:batched")
    assert letter.reason is Reason.UNKNOWN_ACTION
    assert letter.detail.startswith("event 1 of a batch: ")
    assert json.loads(letter.value or b"") == events[1]
    assert not [name for name, _ in letter.headers if name.startswith("ce_")]


def test_a_flood_of_one_user_delays_nobody_and_is_limited_and_reported(shop: Shop) -> None:
    deployment = shop.deployment
    shop.add_item("flooded")
    shop.wait_for("item:flooded")
    lane = next(lane for lane in deployment.running if lane.name == BEHAVIOUR)
    flood = [
        Step(
            UserBehaviour(
                user_id="flood",
                event_id=f"flood-{number}",
                item_id="flooded",
                action="view",
                occurred_at=AT.replace(minute=number // 4_000, second=number % 60),
            ),
            alone=number % 2 == 0,
        )
        for number in range(20_000)
    ]

    traffic = Traffic(deployment, flood, per_second=4_000, sender=behaviour_sender)
    traffic.start()
    wait_until_blocking(lambda: traffic.sent > 1_000, timeout=30)
    waits: list[float] = []
    while traffic.sent < len(flood) - 1_000 and traffic.failure is None:
        started = time.monotonic()
        other = f"other-{len(waits)}"
        shop.like(other, "flooded")
        shop.wait_for(f"user:{other}")
        waits.append(time.monotonic() - started)
    traffic.finish()
    deployment.wait_settled()

    assert waits, "the flood was over before anybody else came"
    assert max(waits) < OTHERS_WAIT_SECONDS, waits
    stored = stored_histories(deployment, "flood")
    behaviour = deployment.settings.behaviour
    assert contents(stored) == expected_histories(flood, behaviour)
    (history,) = stored.values()
    assert len(history.events) == behaviour.max_events
    assert_user_vectors_follow(deployment, stored)
    assert lane.metric("freshet_behaviour_limited_events_total") >= len(flood) - 5 * 60
    assert "behaviour_limited" in lane.log.read_text()
    assert "reached the limit of 60 a minute" in deployment.freshet("explain", "user:flood").stdout
