import ssl
import subprocess
import sys

import kafka.errors
import pytest
from pydantic import SecretStr

from schemas.errors import ConfigurationError, Transient
from streams.kafka_clients import KafkaConnection, retried, translated
from streams.settings import KafkaSettings


def test_plaintext_needs_only_the_addresses() -> None:
    connection = KafkaConnection.of(KafkaSettings(bootstrap_servers="a:1, b:2"))

    assert connection.options() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_sasl_over_tls_brings_credentials_and_a_verifying_context() -> None:
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="films",
        sasl_password=SecretStr("hush"),
    )

    options = KafkaConnection.of(settings).options()

    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "films"
    assert options["sasl_plain_password"] == "hush"
    context = options["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_password_is_not_in_the_representation() -> None:
    connection = KafkaConnection(sasl_password="hush")

    assert "hush" not in repr(connection)


def test_a_ca_file_that_cannot_be_read_names_its_setting(tmp_path) -> None:
    connection = KafkaConnection(security_protocol="SSL", ssl_cafile=tmp_path / "none.pem")

    with pytest.raises(ConfigurationError, match="FRESHET_KAFKA__SSL_CAFILE"):
        connection.options()


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (kafka.errors.KafkaTimeoutError("late"), Transient),
        (kafka.errors.NotEnoughReplicasError(), Transient),
        (kafka.errors.SaslAuthenticationFailedError(), ConfigurationError),
        (kafka.errors.TopicAuthorizationFailedError(), ConfigurationError),
    ],
)
def test_errors_of_the_client_become_ours(error, becomes) -> None:
    with pytest.raises(becomes) as raised, translated():
        raise error

    assert raised.value.__cause__ is error


def test_patience_is_shown_to_retriable_errors_only() -> None:
    answers = iter([kafka.errors.CoordinatorNotAvailableError(), None])

    def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "answer"

    assert retried(call, 5) == "answer"


def test_patience_ends() -> None:
    def call() -> None:
        raise kafka.errors.CoordinatorNotAvailableError

    with pytest.raises(kafka.errors.CoordinatorNotAvailableError):
        retried(call, 0)


def test_the_producer_needs_no_more_than_its_extra() -> None:
    foreign = "pydantic_settings aiokafka faust redis numpy torch structlog typer httpx"
    probe = (
        f"import sys, streams.producers\nprint(sorted(set({foreign.split()!r}) & set(sys.modules)))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", probe], check=False, capture_output=True, text=True
    )

    assert loaded.stdout.strip() == "[]", loaded.stderr
