"""`freshet erase` against real lanes: it ends when they have done what it asked for."""

from datetime import UTC, datetime

import pytest

from streams.producers import BehaviourProducer, CatalogProducer
from tests.cli_runner import run_freshet
from tests.deployment import Deploy
from tests.stack import wait_until_blocking
from workers.live.live_vectors import LiveVectors

pytestmark = pytest.mark.timeout(180)

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_a_user_is_erased_by_hand_and_explain_says_as_of_when(
    deploy: Deploy, capsys, monkeypatch
) -> None:
    deployment = deploy()
    deployment.start_all("items", "encode", "behaviour")
    servers, prefix = deployment.bootstrap_servers, deployment.prefix
    for name, value in {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": servers,
        "FRESHET_KAFKA__TOPIC_PREFIX": prefix,
        "FRESHET_REDIS__URL": deployment.redis_url,
        "FRESHET_REDIS__KEY_PREFIX": prefix,
    }.items():
        monkeypatch.setenv(name, value)
    with CatalogProducer(servers, topic_prefix=prefix) as catalog:
        catalog.upsert("a", 1, {"title": "Film a", "genres": ["Drama"]})
    with BehaviourProducer(servers, topic_prefix=prefix, batch_events=10) as behaviour:
        behaviour.interaction("7", "a", "like", event_id="e1", occurred_at=AT)
        behaviour.interaction("7", "b", "view", event_id="e2", occurred_at=AT)
    with LiveVectors(deployment.redis_url, key_prefix=prefix) as live:

        def has_vector() -> bool:
            with live.pin() as view:
                return bool(view.get(["user:7"]).found[0])

        wait_until_blocking(has_vector, timeout=30)

        before = run_freshet(capsys, "explain", "user:7")
        erased = run_freshet(capsys, "erase", "user:7", "--wait", "30")
        after = run_freshet(capsys, "explain", "user:7")

        assert before.out.startswith("user:7: live from 2 interactions\n")
        assert erased.code == 0, erased.err
        assert erased.out.startswith("user:7 is erased as of ")
        assert not has_vector()
        assert after.out.startswith("user:7: erased (erased as of ")
