"""Bad input on a real broker: each record ends as accepted, stale or a dead letter.

The lane goes on; a flood of invalid records pauses it until an operator resumes it.
"""

import json
from collections.abc import Sequence
from functools import partial

import pytest

from schemas.dead_letter import HEAD_BYTES, DeadLetter
from schemas.entities import EntityKey
from schemas.reasons import Reason
from tests.delivery import stored_documents
from tests.deployment import Deploy, Deployment
from tests.stack import wait_until_blocking

pytestmark = pytest.mark.timeout(240)

KEY = b"item:1"


def _body(**changes: object) -> bytes:
    event = {
        "type": "item.upserted",
        "item_id": "1",
        "version": 1,
        "item": {"title": "Heat", "genres": ["Crime"]},
    }
    return json.dumps({**event, **changes}).encode()


def _without(field: str) -> bytes:
    event = json.loads(_body())
    del event[field]
    return json.dumps(event).encode()


INVALID: Sequence[tuple[str, bytes | None, bytes | None, Reason]] = (
    ("not JSON", KEY, b"{oops", Reason.NOT_JSON),
    ("a list", KEY, b"[1]", Reason.NOT_AN_OBJECT),
    ("a wrong type", KEY, _body(item_id=1), Reason.WRONG_TYPE),
    ("an unknown event", KEY, _body(type="item.eaten"), Reason.UNKNOWN_TYPE),
    ("no version", KEY, _without("version"), Reason.BAD_VERSION),
    ("a negative version", KEY, _body(version=-1), Reason.BAD_VERSION),
    ("a huge version", KEY, _body(version=2**63), Reason.BAD_VERSION),
    ("no item", KEY, _without("item"), Reason.MISSING_FIELD),
    ("a null key", None, _body(), Reason.NULL_KEY),
    ("a wrong key", b"item:2", _body(), Reason.WRONG_KEY),
    ("a tombstone", KEY, None, Reason.NULL_VALUE),
    ("an empty title", KEY, _body(item={"title": " \t"}), Reason.EMPTY_TITLE),
    ("lone surrogates", KEY, _body(item={"title": "\ud800"}), Reason.INVALID_UNICODE),
    ("not UTF-8", KEY, b'{"type": "\xff"}', Reason.INVALID_UNICODE),
    ("NaN", KEY, _body(item={"title": "x", "score": float("nan")}), Reason.NOT_FINITE),
    ("a far future", KEY, _body(occurred_at="2200-01-01T00:00:00Z"), Reason.FUTURE_TIME),
    ("3 MB", KEY, _body(item={"title": "x" * 3_000_000}), Reason.TOO_LARGE),
)


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    deployment = deploy(environment={"FRESHET_LANE__FLOOD_WINDOW": "100"})
    deployment.start_all("items", "encode")
    return deployment


@pytest.fixture
def produce(deployment: Deployment):
    return partial(deployment.produce, "catalog.items")


def _letters(deployment: Deployment) -> list[DeadLetter]:
    return [
        DeadLetter.from_record(record.key, record.value, record.headers)
        for record in deployment.records(deployment.prefix + "dead-letters.items")
    ]


def _title(deployment: Deployment, key: str) -> object:
    (document,) = stored_documents(deployment, [EntityKey.parse(key)])
    return None if document.content is None else document.content.fields["title"]


def test_every_kind_of_bad_input_ends_where_it_should_and_the_lane_goes_on(
    deployment: Deployment, produce
) -> None:
    produce(*((key, value) for _, key, value, _ in INVALID))
    accepted = _body(item={"title": "He\u0007at"}, version=5, unknown_field={"a": [1]})
    produce((KEY, accepted), (KEY, accepted), (KEY, _body(version=4)))

    wait_until_blocking(lambda: _title(deployment, "item:1") == "He at", timeout=30)
    wait_until_blocking(lambda: len(_letters(deployment)) >= len(INVALID), timeout=30)
    letters = _letters(deployment)
    assert [letter.reason for letter in letters] == [reason for *_, reason in INVALID]
    for letter, (name, key, value, reason) in zip(letters, INVALID, strict=True):
        whole = value[:HEAD_BYTES] if value and reason is Reason.TOO_LARGE else value
        assert letter.value == whole, name
        assert letter.key == key, name
        assert letter.topic == deployment.prefix + "catalog.items"
    assert letters[-1].original_bytes == len(_body(item={"title": "x" * 3_000_000}))


def test_a_flood_of_invalid_records_pauses_the_lane_until_it_is_resumed(
    deployment: Deployment, produce
) -> None:
    lane = deployment.running[0]
    produce(*((KEY, b"{oops %d" % number) for number in range(400)))
    wait_until_blocking(lambda: "paused" in lane.readiness()["reasons"], timeout=30)
    buried = len(_letters(deployment))
    produce((KEY, _body(version=9)))
    assert buried < 400, "the flood must not be emptied into the dead letters"
    assert lane.process.poll() is None

    lane.terminate()
    again = deployment.start("items")
    wait_until_blocking(lambda: "paused" in again.readiness()["reasons"], timeout=60)

    # Three windows of it are left: every pause that follows is resumed, too.
    def resumed_to_the_end() -> bool:
        if "paused" in again.readiness()["reasons"]:
            resumed = deployment.freshet("lane", "resume", "items")
            assert resumed.returncode == 0, resumed.stderr
        return _title(deployment, "item:1") == "Heat"

    wait_until_blocking(resumed_to_the_end, timeout=90, interval=1.0)
    deployment.wait_settled(60)
    assert len(_letters(deployment)) == 400
