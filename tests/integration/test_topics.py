"""Topics on a real broker: created, compared, put right, and never harmed."""

import json

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource

from schemas.errors import ConfigurationError, Transient
from streams import topic_admin
from streams.settings import KafkaSettings
from tests.cli_runner import run_freshet
from tests.stack import create_topic, wait_until_blocking


@pytest.fixture
def settings(kafka, topic_prefix) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, partitions=2
    )


@pytest.fixture
def admin(kafka):
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    yield client
    client.close()


def test_apply_creates_every_declared_topic_and_then_nothing_differs(settings) -> None:
    missing = topic_admin.check(settings)

    applied = topic_admin.apply(settings)

    assert {difference.setting for difference in missing} == {topic_admin.MISSING}
    assert len(missing) == len(applied.changes) == len(topic_admin.declared(settings))
    assert applied.remaining == ()
    assert topic_admin.check(settings) == ()
    assert topic_admin.apply(settings) == topic_admin.Applied((), ())


def test_a_changed_configuration_is_found_and_set_back(settings, admin) -> None:
    topic_admin.apply(settings)
    name = f"{settings.topic_prefix}entities"
    admin.alter_configs([ConfigResource("TOPIC", name, {"cleanup.policy": "delete"})])
    # The controller has the change at once; the broker that describes it may need a moment.
    wait_until_blocking(lambda: topic_admin.check(settings))

    applied = topic_admin.apply(settings)

    assert [(d.topic, d.setting, d.actual, d.expected) for d in applied.changes] == [
        (name, "cleanup.policy", "delete", "compact")
    ]
    assert applied.remaining == ()
    assert topic_admin.check(settings) == ()


def test_partitions_are_added_while_no_compacted_topic_holds_records(settings) -> None:
    topic_admin.apply(settings)
    grown = settings.model_copy(update={"partitions": 3})

    applied = topic_admin.apply(grown)

    assert {change.setting for change in applied.changes} == {topic_admin.PARTITIONS}
    assert topic_admin.check(grown) == ()


def test_partitions_are_not_added_once_keys_could_move_in_a_compacted_topic(settings) -> None:
    topic_admin.apply(settings)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    producer.send(f"{settings.topic_prefix}entities", key=b"item:42", value=b"{}").get(10)
    producer.close()
    grown = settings.model_copy(update={"partitions": 3})

    applied = topic_admin.apply(grown)

    assert applied.changes == ()
    assert {difference.setting for difference in applied.remaining} == {topic_admin.PARTITIONS}
    assert all("keys would move" in difference.obstacle for difference in applied.remaining)


def test_too_many_partitions_and_too_few_replicas_are_reported_and_left(settings) -> None:
    topic_admin.apply(settings)
    other = settings.model_copy(update={"partitions": 1, "replication_factor": 3})

    applied = topic_admin.apply(other)

    assert applied.changes == ()
    assert {difference.setting for difference in applied.remaining} == {
        topic_admin.PARTITIONS,
        topic_admin.REPLICATION,
    }


def test_a_lane_may_require_its_own_topics_only(settings) -> None:
    name = f"{settings.topic_prefix}knowledge"
    create_topic(settings.bootstrap_servers, name, partitions=1)

    with pytest.raises(ConfigurationError, match=f"{name}: partitions is 1, expected 2"):
        topic_admin.require(settings, [name])
    with pytest.raises(ConfigurationError, match="items: missing; run: freshet topics apply"):
        topic_admin.require(settings, [f"{settings.topic_prefix}catalog.items"])

    topic_admin.apply(settings)
    topic_admin.require(settings, [name])


def test_no_broker_is_transient(monkeypatch) -> None:
    monkeypatch.setattr("streams.kafka_clients.BOOTSTRAP_SECONDS", 1)

    with pytest.raises(Transient, match="kafka"):
        topic_admin.check(KafkaSettings(bootstrap_servers="127.0.0.1:1"))


def test_the_command_reports_changes_and_ends_with_1_while_something_differs(
    capsys, monkeypatch, settings
) -> None:
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("FRESHET_KAFKA__TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("FRESHET_KAFKA__PARTITIONS", "2")

    before = run_freshet(capsys, "topics", "check")
    applied = run_freshet(capsys, "topics", "apply", "--lane", "encode.parts-pca-2", "--json")
    after = run_freshet(capsys, "topics", "check", "--json")

    assert before.code == 1
    assert f"{settings.topic_prefix}catalog.items: missing" in before.out
    assert applied.code == 0
    created = {change["topic"] for change in json.loads(applied.out)["changes"]}
    assert f"{settings.topic_prefix}dead-letters.encode.parts-pca-2" in created
    assert after.code == 0
    assert json.loads(after.out) == {"differences": []}
