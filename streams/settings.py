"""Settings of every Freshet process: environment variables `FRESHET_<GROUP>__<NAME>`.

Read once at the edge (cli, apps) and passed on through constructors; nothing else looks at the
environment. Cross-checks run at start, so a wrong combination never gets as far as a consumer.
"""

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError

DEFAULT_SEMANTIC_FIELDS = (
    "title subtitle description plot summary year genres genre categories category brand "
    "author authors director directors writers actors cast artist language country tags"
).split()

WRITER_NAME = r"^(recorded|vllm|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"

DEFAULT_FACTORS = ("genre", "people", "theme", "mood", "acclaim", "audience")


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Group):
    """How to reach Kafka, and the consumer-group timings that faust.md section 5 measured."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma separated")
    topic_prefix: str = Field("", description="Put before every topic and group name")
    partitions: int = Field(8, ge=1, description="Partitions of the entity topics: one worker each")
    replication_factor: int = Field(1, ge=1, description="3 in production; 1 fits one broker")
    min_insync_replicas: int = Field(1, ge=1, description="2 in production")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: Path | None = Field(None, description="CA bundle; the system's when empty")
    session_timeout_seconds: float = Field(45.0, description="A dead worker is noticed after this")
    heartbeat_interval_seconds: float = Field(
        1.0, description="A clean leave stalls the leaver's partitions for one heartbeat"
    )
    rebalance_timeout_seconds: float = Field(90.0, description="Limit of a drain at a rebalance")
    request_timeout_seconds: float = Field(
        120.0, description="Must exceed the rebalance timeout: it bounds the blocking JoinGroup"
    )
    produce_timeout_seconds: float = Field(
        30.0, description="Below the session timeout, so an evicted owner cannot write late"
    )
    max_poll_interval_seconds: float = Field(
        86_400.0, description="Above the longest outage to sit out: a held partition is not dead"
    )
    commit_interval_seconds: float = Field(
        1.0, description="Acks not yet committed are redone after a rebalance"
    )
    stream_buffer_records: int = Field(4_000, description="At least twice the peak events/s")
    fetch_records: int = Field(
        2_000, description="broker_max_poll_records: a poll is a hop between two threads"
    )
    fast_path: bool = Field(True, description="Inlined drain; off falls back to upstream's")


class RedisSettings(_Group):
    """How to reach Redis."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="redis://, rediss:// or unix://"
    )
    key_prefix: str = Field("", description="Put before every key")
    timeout_seconds: float = Field(5.0, gt=0, description="Per command; then it is transient")
    ssl_cafile: Path | None = None


class LaneSettings(_Group):
    """Bounds of a lane's engine."""

    max_records: int = Field(5_000, ge=1, description="Records held; more waits in Kafka")
    max_bytes: int = Field(64 * 1024 * 1024, ge=1, description="Bytes held; more waits in Kafka")
    max_batch: int = Field(256, ge=1, description="Records a batch")
    linger_ms: float = Field(5.0, ge=0, description="Waited only while records keep arriving")
    drain_seconds: float = Field(30.0, gt=0, description="At a rebalance or SIGTERM, then abandon")
    grace_seconds: float = Field(40.0, gt=0, description="After SIGTERM, then a hard exit")
    stall_seconds: float = Field(
        300.0, gt=0, description="Watchdog: lag, nothing settles and no circuit is open"
    )
    flood_share: float = Field(0.5, gt=0, le=1, description="Invalid share that pauses the lane")
    flood_window: int = Field(200, ge=10, description="Records the share is taken over")
    max_attempts_alone: int = Field(8, ge=2, description="Then a dead letter `fails_alone`")
    retry_first_seconds: float = Field(0.2, gt=0)
    retry_longest_seconds: float = Field(15.0, gt=0)


class ItemsSettings(_Group):
    """The items lane."""

    semantic_fields: list[str] = Field(
        DEFAULT_SEMANTIC_FIELDS, description="Fields that carry meaning; others cost no work"
    )
    version_from: Literal["event", "record_timestamp"] = Field(
        "event", description="record_timestamp: for sources that have no version of their own"
    )
    max_record_bytes: int = Field(1_048_576, description="Larger records are dead letters")
    max_clock_skew_seconds: float = Field(86_400.0, description="occurred_at may be this far ahead")


class KnowledgeSettings(_Group):
    """The knowledge lanes and their writer."""

    writer: str = Field(
        "recorded",
        pattern=WRITER_NAME,
        description="Who answers prompts: recorded, vllm, or a class as package.module:Class",
    )
    recorded_file: Path | None = Field(None, description="JSONL of recorded answers")
    vllm_url: str = Field("http://127.0.0.1:8000", description="vLLM's OpenAI-compatible server")
    vllm_api_key: SecretStr = SecretStr("")
    vllm_accepts_priority: bool = Field(
        False, description="For a server started with --scheduling-policy priority"
    )
    vllm_connect_seconds: float = Field(5.0, gt=0, description="To open a connection")
    model: str = Field("recorded-answers", description="Declared, never adopted from the server")
    domain: str = Field("movies", description="Prompt domain")
    factors: list[str] = Field(list(DEFAULT_FACTORS), description="One bounded string each")
    in_flight: int = Field(64, ge=1, description="About twice the server's max-num-seqs")
    call_seconds: float = Field(60.0, gt=0, description="Deadline of one call")
    max_tokens: int = Field(400, ge=16, description="Completion tokens an answer")
    max_factor_chars: int = Field(400, ge=20)
    rejected_retry_first_seconds: float = Field(300.0, description="Grows fourfold each time")
    rejected_retry_attempts: int = Field(4, ge=0)


class EncodeSettings(_Group):
    """The encode lane."""

    spaces_dir: Path = Field(Path(".freshet/spaces"), description="space.json + adaptor files")
    max_batch: int = Field(64, ge=1, description="Entities a batch")
    max_batch_tokens: int = Field(16_384, ge=1)
    threads: int = Field(1, ge=1, description="torch threads")
    refuse_parity_below: float = Field(0.999, description="Cosine to the golden vectors")


class WebSettings(_Group):
    """Health and metrics pages of a lane."""

    host: str = Field("127.0.0.1", description="0.0.0.0 inside a container")
    port: int = Field(0, ge=0, le=65_535, description="0 for any free port (printed at start)")


class Settings(BaseSettings):
    """All of it. `Settings.load()` turns errors into one clear line."""

    model_config = SettingsConfigDict(
        env_prefix="FRESHET_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    lane: LaneSettings = LaneSettings()
    items: ItemsSettings = ItemsSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    encode: EncodeSettings = EncodeSettings()
    web: WebSettings = WebSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _timings_agree(self) -> Self:
        kafka, lane = self.kafka, self.lane
        ascending = (
            ("lane.drain_seconds", lane.drain_seconds),
            ("kafka.rebalance_timeout_seconds", kafka.rebalance_timeout_seconds),
            ("kafka.request_timeout_seconds", kafka.request_timeout_seconds),
        )
        for (low, low_value), (high, high_value) in pairwise(ascending):
            if low_value >= high_value:
                raise ValueError(f"{low} ({low_value}) must be below {high} ({high_value})")
        if kafka.produce_timeout_seconds >= kafka.session_timeout_seconds:
            raise ValueError(
                "kafka.produce_timeout_seconds must be below kafka.session_timeout_seconds"
            )
        if lane.grace_seconds <= lane.drain_seconds:
            raise ValueError("lane.grace_seconds must be above lane.drain_seconds")
        return self

    @classmethod
    def load(cls) -> Self:
        """Return the settings of this process; raises ConfigurationError naming the setting."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = "__".join(str(step) for step in first["loc"]).upper()
            setting = f"FRESHET_{path}" if path else "settings"
            raise ConfigurationError(setting, first["msg"]) from error
