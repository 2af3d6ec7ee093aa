"""Fixtures of tests that run whole deployments."""

import shutil
from collections.abc import Iterator, Mapping
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
    fit_spaces(Settings(encode=EncodeSettings(spaces_dir=root / "spaces")), root)
    return root / "spaces"


@pytest.fixture
def deploy(
    kafka: KafkaServer,
    redis_server: RedisServer,
    fitted_spaces: Path,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Deploy]:
    """A factory of a deployment with its spaces, on the shared servers or on the test's own."""
    made: list[Deployment] = []

    def start(
        *,
        own_kafka: KafkaServer | None = None,
        own_redis: RedisServer | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Deployment:
        deployment = Deployment(
            tmp_path,
            (own_kafka or kafka).bootstrap_servers,
            (own_redis or redis_server).url,
            topic_prefix,
            environment={
                "VERSION_WRITER_CALLS": str(tmp_path / "calls"),
                "VERSION_WRITER_MOOD": str(tmp_path / "mood"),
                "VERSION_WRITER_LATENCY_MS": "20",
                "FRESHET_KNOWLEDGE__REJECTED_RETRY_FIRST_SECONDS": "1",
                **(environment or {}),
            },
        )
        made.append(deployment)
        deployment.__enter__()
        shutil.copytree(fitted_spaces, deployment.root / "spaces")
        register_spaces(deployment.settings)
        return deployment

    yield start
    for deployment in made:
        deployment.__exit__()
