"""How to reach Kafka, as keyword arguments of the two client libraries, and their errors as ours.

The one place that knows how kafka-python and aiokafka spell addresses, SASL and TLS. Needs neither
the settings nor a client library to be imported, so a producer application can use it too.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from schemas.errors import ConfigurationError, Transient

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaConsumer

    from streams.settings import KafkaSettings

T = TypeVar("T")

BOOTSTRAP_SECONDS = 10
"""A command that finds no broker for so long says so instead of trying on."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Address and security of a Kafka cluster."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ssl_cafile: Path | None = None

    @classmethod
    def of(cls, settings: "KafkaSettings") -> Self:
        """Return the connection that the settings describe."""
        return cls(
            bootstrap_servers=settings.bootstrap_servers,
            security_protocol=settings.security_protocol,
            sasl_mechanism=settings.sasl_mechanism,
            sasl_username=settings.sasl_username,
            sasl_password=settings.sasl_password.get_secret_value(),
            ssl_cafile=settings.ssl_cafile,
        )

    @property
    def servers(self) -> list[str]:
        """The bootstrap servers one by one."""
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    def options(self) -> dict[str, object]:
        """Return what both libraries spell alike; raises ConfigurationError on a bad CA file."""
        options: dict[str, object] = {
            "bootstrap_servers": self.servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self.ssl_context()
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return options

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS context: the given CA bundle or the system's, host names checked."""
        try:
            return ssl.create_default_context(cafile=self.ssl_cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                "FRESHET_KAFKA__SSL_CAFILE", f"{self.ssl_cafile}: {error}"
            ) from error


@contextmanager
def translated() -> Iterator[None]:
    """Turn kafka-python's errors into Transient("kafka"), refusals into ConfigurationError."""
    import kafka.errors

    try:
        yield
    except (
        kafka.errors.AuthorizationError,
        kafka.errors.SaslAuthenticationFailedError,
        kafka.errors.UnsupportedSaslMechanismError,
    ) as error:
        raise ConfigurationError("kafka", str(error)) from error
    except kafka.errors.KafkaError as error:
        raise Transient("kafka", str(error)) from error


def retried(call: Callable[[], T], seconds: float = BOOTSTRAP_SECONDS) -> T:
    """Return what `call` returns, repeating it for `seconds` while Kafka asks for patience.

    The first use of consumer groups on a fresh cluster, a moving leader and a restarting
    coordinator all answer with retriable errors that kafka-python's admin client passes on.
    """
    import kafka.errors

    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except kafka.errors.KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def admin_client(connection: KafkaConnection) -> Iterator["KafkaAdminClient"]:
    """Yield a connected kafka-python admin client; raises Transient("kafka") if none answers."""
    from kafka import KafkaAdminClient

    with translated():
        client = KafkaAdminClient(
            **connection.options(), bootstrap_timeout_ms=BOOTSTRAP_SECONDS * 1000
        )
        try:
            yield client
        finally:
            client.close()


@contextmanager
def assigned_consumer(
    connection: KafkaConnection, **overrides: object
) -> Iterator["KafkaConsumer"]:
    """Yield a kafka-python consumer without a group, for `assign` and `seek`."""
    from kafka import KafkaConsumer

    options: dict[str, object] = {
        **connection.options(),
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "bootstrap_timeout_ms": BOOTSTRAP_SECONDS * 1000,
        **overrides,
    }
    with translated():
        consumer = KafkaConsumer(**options)
        try:
            yield consumer
        finally:
            consumer.close(autocommit=False)
