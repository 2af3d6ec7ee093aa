"""From an event on Kafka to a user vector that rankers read: real lanes, Kafka and Redis."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import numpy as np
import pytest

from schemas.history import HistoryRecord
from tests.deployment import Deploy
from tests.shop import AT, Shop

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shop(deploy_for_all: Deploy) -> Iterator[Shop]:
    deployment = deploy_for_all()
    deployment.start_all("items", "encode", "behaviour")
    with closing(Shop(deployment)) as shop:
        yield shop


def test_events_become_vectors_whenever_and_in_whatever_order_they_come(shop: Shop) -> None:
    for id_ in ("a", "b"):
        shop.add_item(id_)
        shop.wait_for(f"item:{id_}")

    shop.like("7", "a")
    first = shop.wait_for("user:7")
    shop.like("7", "b", minutes=60)
    second = shop.wait_for("user:7", first.revs[0])
    shop.like("8", "b", minutes=60)
    only_b = shop.wait_for("user:8")
    shop.like("8", "a")  # late
    late = shop.wait_for("user:8", only_b.revs[0])

    (item,) = shop.read("item:a").values.astype(np.float32)
    np.testing.assert_allclose(first.values[0], item / np.linalg.norm(item), atol=2e-3)
    assert np.abs(second.values - first.values).max() > 0.01
    np.testing.assert_array_equal(late.values, second.values)
    assert late.event_times_ms[0] == round((AT + timedelta(hours=1)).timestamp() * 1000)


def test_an_item_that_comes_after_its_events_reaches_its_users(shop: Shop) -> None:
    shop.like("patient", "late")
    shop.deployment.wait_settled()
    assert not shop.has("user:patient")

    shop.add_item("late")

    vector = shop.wait_for("user:patient").values[0].astype(np.float32)
    (item,) = shop.read("item:late").values.astype(np.float32)
    np.testing.assert_allclose(vector, item / np.linalg.norm(item), atol=2e-3)


def test_an_erased_user_is_gone_and_late_events_do_not_bring_them_back(shop: Shop) -> None:
    shop.add_item("c")
    shop.wait_for("item:c")
    shop.like("gone", "c")
    shop.wait_for("user:gone")

    shop.erase("gone", minutes=10)
    shop.wait_gone("user:gone")
    shop.like("gone", "c", minutes=5, event_id="late")
    shop.deployment.wait_settled()

    assert not shop.has("user:gone")
    prefix = shop.deployment.prefix
    *_, newest = [
        HistoryRecord.decode(record.value)
        for record in shop.deployment.records(prefix + "histories")
        if record.key == b"user:gone"
    ]
    assert not newest.history.events
    removal = shop.deployment.entities()["user:gone"]
    assert removal.document.removed is not None
    assert removal.document.removed.version == newest.history.rev
