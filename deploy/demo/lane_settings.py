"""The settings of a demo: of its lanes, of whoever encodes, and of its own commands."""

from collections.abc import Mapping
from pathlib import Path

from deploy.demo.films import KNOWLEDGE_FILE
from deploy.demo.language_model import LanguageModel
from deploy.local.stack import LocalStack
from streams.settings import EncodeSettings, KafkaSettings, RedisSettings, Settings

PARTITIONS = 4

USER_CALLS_A_DAY = 1
"""Of the season, about all users together: each call costs the encoder as much as a film does."""

USER_EVENTS_WORTH_WRITING = 30
"""Events of a user whom a language model on a CPU is asked about."""


def settings_of(stack: LocalStack) -> Settings:
    """Return the settings of the demo's own commands."""
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=stack.kafka.bootstrap_servers, partitions=PARTITIONS),
        redis=RedisSettings(url=stack.redis.url),
        encode=EncodeSettings(spaces_dir=stack.root / "spaces"),
    )


def lane_variables(root: Path, stack: LocalStack, model: LanguageModel | None) -> Mapping[str, str]:
    """Return the environment of the lanes; without a `model`, answers are recorded ones."""
    return {
        **stack.environment,
        **encode_variables(root),
        "FRESHET_KAFKA__PARTITIONS": str(PARTITIONS),
        # A recording says the same again, and a retry that waits would keep the lag above 0.
        "FRESHET_KNOWLEDGE__REJECTED_RETRY_ATTEMPTS": "0",
        # No space of the demo needs it; so that `freshet explain` has something to tell of users.
        "FRESHET_BEHAVIOUR__KNOWLEDGE": "on",
        "FRESHET_BEHAVIOUR__GATE_CALLS_PER_DAY": str(USER_CALLS_A_DAY),
        **(_RECORDED if model is None else {**model.variables, **_FEW_USERS}),
    }


_RECORDED: Mapping[str, str] = {
    "FRESHET_KNOWLEDGE__WRITER": "recorded",
    "FRESHET_KNOWLEDGE__RECORDED_FILE": str(KNOWLEDGE_FILE),
}

_FEW_USERS: Mapping[str, str] = {
    # Of users, only the most active ones: a season has one call a day, and a CPU no time for that.
    "FRESHET_BEHAVIOUR__GATE_MIN_EVENTS": str(USER_EVENTS_WORTH_WRITING),
}


def encode_variables(root: Path) -> Mapping[str, str]:
    """Return the environment of whoever encodes."""
    return {
        "FRESHET_ENCODE__SPACES_DIR": str(root / "spaces"),
        "FRESHET_ENCODE__CACHE_DIR": str(root / "cache"),
        # A developer's machine has a core to spare for the one lane that computes.
        "FRESHET_ENCODE__THREADS": "2",
        # Threads that spin while they wait for one another cost the other processes their cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
