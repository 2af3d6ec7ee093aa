"""Fixtures of every test: one shared Kafka and Redis a run, and private ones to fail on purpose.

Servers start on first use, so a run of unit tests starts none. Tests that share the servers keep
apart by `topic_prefix`; nobody empties them.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from deploy.local.kafka_server import KafkaServer
from deploy.local.redis_server import RedisServer
from tests import stack

# Time is no finding: on a busy machine a first example may take seconds.
hypothesis.settings.register_profile(
    "freshet", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("freshet")

# Cheap and precise first: their failures explain those that come after.
_FOLDERS = ("unit", "component", "contracts", "integration", "e2e", "llm")
_MARKED_FOLDERS = {"integration", "e2e", "llm"}
_TESTS = Path(__file__).parent

_SPREAD = {"test_delivery.py"}
"""Files whose tests share nothing and take long: two processes may share them. Of other files one
process runs all tests, so that what they share is made once."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by their folder (the order within one stays random) and mark them by it."""
    ranks = {name: rank for rank, name in enumerate(_FOLDERS)}
    items.sort(key=lambda item: ranks.get(_folder(item), len(ranks)))
    for item in items:
        if _folder(item) in _MARKED_FOLDERS:
            item.add_marker(_folder(item))
        if item.path.name not in _SPREAD:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(_TESTS))))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).parts[0]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaServer]]:
    """A factory of running brokers that nobody else uses; takes the arguments of KafkaServer."""
    with ExitStack() as servers:

        def start(**arguments) -> KafkaServer:
            data_dir = tmp_path / f"kafka-{secrets.token_hex(4)}"
            return servers.enter_context(KafkaServer(data_dir, **arguments))

        yield start


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """A factory of running Redis servers that nobody else uses; arguments as RedisServer."""
    with ExitStack() as servers:

        def start(**arguments) -> RedisServer:
            data_dir = tmp_path / f"redis-{secrets.token_hex(4)}"
            return servers.enter_context(RedisServer(data_dir, **arguments))

        yield start


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for names in the shared Kafka and Redis that no other test has."""
    return f"t{secrets.token_hex(4)}."


@pytest.fixture
def wait_until():
    """The function `tests.stack.wait_until(predicate, timeout, interval)`."""
    return stack.wait_until
