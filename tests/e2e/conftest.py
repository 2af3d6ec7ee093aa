"""Fixtures of tests that run whole deployments."""

import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from streams.settings import EncodeSettings, Settings
from tests.deployment import Deploy, Deployment
from tests.spaces import fit_spaces, register_spaces


@pytest.fixture(scope="session")
def fitted_spaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaces directory; fitting takes seconds, so every test copies this one."""
    root = tmp_path_factory.mktemp("fitted")
    encode = EncodeSettings(spaces_dir=root / "spaces", cache_dir=root / "cache")
    fit_spaces(Settings(encode=encode), root)
    return root / "spaces"


@contextmanager
def _deployments(
    kafka: KafkaServer, redis_server: RedisServer, spaces: Path, root: Path, prefix: str
) -> Iterator[Deploy]:
    made: list[Deployment] = []

    def start(
        *,
        own_kafka: KafkaServer | None = None,
        own_redis: RedisServer | None = None,
        partitions: int = 4,
        environment: Mapping[str, str] | None = None,
    ) -> Deployment:
        deployment = Deployment(
            root,
            (own_kafka or kafka).bootstrap_servers,
            (own_redis or redis_server).url,
            prefix,
            partitions,
            environment={
                "VERSION_WRITER_CALLS": str(root / "calls"),
                "VERSION_WRITER_MOOD": str(root / "mood"),
                "VERSION_WRITER_LATENCY_MS": "20",
                "FRESHET_KNOWLEDGE__REJECTED_RETRY_FIRST_SECONDS": "1",
                **(environment or {}),
            },
        )
        made.append(deployment)
        deployment.__enter__()
        shutil.copytree(spaces, deployment.root / "spaces")
        register_spaces(deployment.settings)
        return deployment

    try:
        yield start
    finally:
        for deployment in made:
            deployment.__exit__()


@pytest.fixture
def deploy(
    kafka: KafkaServer,
    redis_server: RedisServer,
    fitted_spaces: Path,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Deploy]:
    """A factory of a deployment with its spaces, on the shared servers or on the test's own."""
    with _deployments(kafka, redis_server, fitted_spaces, tmp_path, topic_prefix) as start:
        yield start


@pytest.fixture(scope="module")
def deploy_for_all(
    kafka: KafkaServer,
    redis_server: RedisServer,
    fitted_spaces: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deploy]:
    """The same for all tests of a module, because lanes start slowly.

    They keep to users and items of their own.
    """
    root, prefix = tmp_path_factory.mktemp("deployment"), f"t{secrets.token_hex(4)}."
    with _deployments(kafka, redis_server, fitted_spaces, root, prefix) as start:
        yield start
