"""Settings of every Freshet process: environment variables `FRESHET_<GROUP>__<NAME>`.

Read once at the edge (cli, apps) and passed on through constructors; nothing else looks at the
environment. Cross-checks run at start, so a wrong combination never gets as far as a consumer.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.behaviour import MAX_ACTION_BYTES, BehaviourLimits
from schemas.errors import ConfigurationError
from schemas.history import HistoryBounds
from schemas.topics import DAY_MS
from workers.encoding.encoder_choice import EncoderChoice
from workers.knowledge.shared_prompt import SHARED_MEMBERS

DEFAULT_SEMANTIC_FIELDS = (
    "title subtitle description plot summary year genres genre categories category brand "
    "author authors director directors writers actors cast artist language country tags"
).split()

WRITER_NAME = r"^(recorded|vllm|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"

DEFAULT_FACTORS = ("genre", "people", "theme", "mood", "acclaim", "audience")

DEFAULT_ACTIONS: Mapping[str, float] = MappingProxyType(
    {
        "view": 0.2,
        "click": 0.3,
        "like": 1.0,
        "dislike": -1.0,
        "rate": 1.0,
        "purchase": 1.0,
        "play": 0.5,
        "skip": -0.3,
    }
)


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
    vllm_cache_salt: SecretStr = Field(
        SecretStr(""), description="Own to a tenant, where several share a vLLM server"
    )
    vllm_connect_seconds: float = Field(5.0, gt=0, description="To open a connection")
    model: str = Field("recorded-answers", description="Declared, never adopted from the server")
    domain: str = Field("movies", description="Prompt domain")
    factors: list[str] = Field(list(DEFAULT_FACTORS), description="One bounded string each")
    in_flight: int = Field(64, ge=1, description="About twice the server's max-num-seqs")
    call_seconds: float = Field(60.0, gt=0, description="Deadline of one call")
    backlog_look_seconds: float = Field(
        0.25, gt=0, le=10, description="How often the backlog looks whether the server is free"
    )
    backlog_beside: int = Field(
        8,
        ge=0,
        description="Answers of the backlog at once while others' are written; when others come, "
        "calls over it end and are made later. 0 on a CPU, where even one slows the others down",
    )
    max_tokens: int = Field(400, ge=16, description="Completion tokens an answer")
    max_factor_chars: int = Field(400, ge=20)
    temperature: float = Field(0.0, ge=0, le=2, description="0 is the likeliest word, always")
    top_p: float | None = Field(None, gt=0, le=1, description="None is the server's default")
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="On words of the answer; for models that repeat themselves"
    )
    repetition_penalty: float | None = Field(
        None, gt=0, le=2, description="On words of the prompt too, vLLM only; 1 is none"
    )
    refused_share: float = Field(
        0.9,
        gt=0,
        description="Share of refused answers, of the last 40, that opens the writer's circuit: "
        "the server is then ill. Above 1 never: for a model that is known to be weak",
    )
    overload_seconds: float = Field(
        30.0,
        gt=0,
        description="An item's request that waited longer shares a call with others of its group "
        "and gets a place on the backlog; a recorded writer is never overloaded",
    )
    longest_wait_seconds: float = Field(
        300.0,
        gt=0,
        description="A request that no call came to within this time, or within overload_seconds "
        "where that is longer, is left to the backlog: so the age of requests is bounded, however "
        "many come at once",
    )
    share_seconds: float = Field(
        1.0,
        ge=0,
        le=30,
        description="In overload: how long the first item of a group waits for others, so that "
        "one call is about all of them",
    )
    share_members: int = Field(
        SHARED_MEMBERS,
        ge=1,
        le=SHARED_MEMBERS,
        description="Items such a call is about at most; fewer for a server that takes longer than "
        "call_seconds to write so much",
    )
    parts_wait_seconds: float = Field(
        20.0,
        ge=0,
        description="With the budget spent: for vectors of a new item, which has no group before",
    )
    tokens_per_hour: int = Field(
        0, ge=0, description="Of all knowledge lanes together; 0 for no limit"
    )
    rejected_retry_first_seconds: float = Field(300.0, description="Grows fourfold each time")
    rejected_retry_attempts: int = Field(4, ge=0)


class LlmSettings(_Group):
    """The vLLM server that `freshet llm serve` runs on this machine."""

    project: Path = Field(Path("deploy/vllm"), description="vLLM's own environment is in it")
    models_dir: Path = Field(Path(".freshet/models"), description="A folder a model, by model id")
    run_dir: Path = Field(Path(".freshet/llm"), description="The server's log and API key")


class EncodeSettings(_Group):
    """The encode lane."""

    spaces_dir: Path = Field(Path(".freshet/spaces"), description="space.json + adaptor files")
    cache_dir: Path = Field(
        Path(".freshet/cache"), description="Vectors of texts that fits and evaluations encoded"
    )
    max_batch: int = Field(64, ge=1, description="Entities a batch")
    max_batch_tokens: int = Field(16_384, ge=1)
    encoder: str = Field(
        "minilm",
        min_length=1,
        description="minilm, or the folder of a causal language model in Hugging Face form",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the encoder's products; bfloat16 where the processor has it"
    )
    token_limit: int = Field(500, ge=1, description="Tokens of a text a causal model reads")
    threads: int = Field(1, ge=1, description="torch threads")
    refuse_parity_below: float = Field(0.999, description="Cosine to the golden vectors")

    @property
    def choice(self) -> EncoderChoice:
        """Which encoder to load, and how."""
        return EncoderChoice(self.encoder, self.precision, self.token_limit, self.threads)


class GroupsSettings(_Group):
    """Groups of items that share knowledge until there is knowledge of their own."""

    dir: Path = Field(Path(".freshet/groups"), description="A folder a cut, with its centroids")
    max_depth_ratio: float = Field(
        4.0, gt=1, description="Mean depth of the tree over log2 n; above it, the tree degenerates"
    )


class BehaviourSettings(_Group):
    """The behaviour lane: what actions mean, how much of a user is kept, when to ask about one."""

    actions: dict[str, Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]] = Field(
        dict(DEFAULT_ACTIONS),
        description="Weight of each action; events with any other action are dead letters",
    )
    rated_actions: list[str] = Field(
        ["rate"], description="Actions whose weight is scaled by the event's value"
    )
    rating_neutral: float = Field(
        4.5, description="Says nothing either way; 5 of 10 still says a little for an item"
    )
    rating_best: float = Field(10.0, description="The value that counts with the whole weight")
    rating_worst: float = Field(0.0, description="The value that counts against, wholly")
    negative_share: float = Field(
        0.25, ge=0, le=1, description="What is left of a negative weight in a user vector"
    )
    half_life_days: float = Field(60.0, gt=0, description="An event counts half after this long")
    max_events: int = Field(200, ge=1, le=10_000, description="Newest events kept of a user")
    max_per_minute: int = Field(
        60, ge=1, description="Newest events kept of a minute: bounds what a flood pushes out"
    )
    idle_days: float = Field(
        90.0, gt=0, description="Histories and user vectors go this long after the last change"
    )
    history_flush_seconds: float = Field(
        60.0, gt=0, description="How often changed histories go to the compacted topic"
    )
    max_batch: int = Field(
        512, ge=1, description="Records a batch: the more users, the more items they share"
    )
    max_batch_events: int = Field(4_096, ge=1, description="Events a batch of the handler")
    max_record_bytes: int = Field(1_048_576, description="Larger records are dead letters")
    max_clock_skew_seconds: float = Field(86_400.0, description="occurred_at may be this far ahead")
    knowledge: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether users are written about; auto: while a live space needs it",
    )
    gate_new_events: int = Field(10, ge=1, description="New events worth so many likes")
    gate_drift: float = Field(
        0.3, gt=0, le=2, description="Cosine distance of the taste that justifies a call"
    )
    gate_max_age_days: float = Field(30.0, gt=0, description="Older knowledge is written again")
    gate_min_interval_hours: float = Field(24.0, ge=0, description="Between calls about one user")
    gate_user_calls_per_day: int = Field(1, ge=0, description="Calls about one user")
    gate_calls_per_day: int = Field(10_000, ge=0, description="Calls about all users together")
    gate_min_events: int = Field(3, ge=1, description="Fewer events say too little about a user")
    liked_titles: int = Field(20, ge=1, description="Titles in a prompt about a user")
    disliked_titles: int = Field(10, ge=0, description="Titles in a prompt about a user")

    @model_validator(mode="after")
    def _actions_agree(self) -> Self:
        for action in self.actions:
            if not 0 < len(action.encode()) <= MAX_ACTION_BYTES:
                raise ValueError(f"actions: {action!r} is not of 1-{MAX_ACTION_BYTES} bytes")
        if not any(self.actions.values()):
            raise ValueError("actions: at least one must have a weight other than 0")
        without = sorted(set(self.rated_actions) - set(self.actions))
        if without:
            raise ValueError(f"rated_actions: {', '.join(without)} has no weight in actions")
        if not self.rating_best > self.rating_neutral > self.rating_worst:
            raise ValueError(
                f"rating_best ({self.rating_best}) > rating_neutral ({self.rating_neutral}) > "
                f"rating_worst ({self.rating_worst}) does not hold"
            )
        return self

    @property
    def bounds(self) -> HistoryBounds:
        """How much of a user is kept."""
        return HistoryBounds(self.max_events, self.max_per_minute)

    @property
    def limits(self) -> BehaviourLimits:
        """What a record of the topic may be."""
        return BehaviourLimits(
            actions=frozenset(self.actions),
            rated=frozenset(self.rated_actions),
            max_bytes=self.max_record_bytes,
            max_clock_skew_ms=round(self.max_clock_skew_seconds * 1000),
        )

    @property
    def idle_ms(self) -> int:
        """Life of a history without changes, in ms."""
        return round(self.idle_days * DAY_MS)


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
    llm: LlmSettings = LlmSettings()
    encode: EncodeSettings = EncodeSettings()
    groups: GroupsSettings = GroupsSettings()
    behaviour: BehaviourSettings = BehaviourSettings()
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
