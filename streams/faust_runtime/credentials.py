"""Kafka security as Faust spells it."""

import faust
from faust.types.auth import CredentialsT

from streams.kafka_clients import KafkaConnection


def credentials(kafka: KafkaConnection) -> CredentialsT | None:
    """Return the broker credentials of a connection, None for plaintext without SASL."""
    tls = kafka.ssl_context() if kafka.security_protocol.endswith("SSL") else None
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password,
            ssl_context=tls,
            mechanism=kafka.sasl_mechanism,
        )
    return None if tls is None else faust.SSLCredentials(tls)
