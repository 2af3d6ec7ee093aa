"""Makes the lanes: each with the workers, stores and bounds that it runs on.

The half of the composition root that knows one lane from another; streams.assembly puts the engine
around whatever is made here.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from schemas.events import ContentPolicy, DecodeLimits
from schemas.topics import Topic
from streams.backfill import BackfilledItems, OwnTower
from streams.backlog_admission import BacklogAdmission
from streams.dead_letter_sink import KafkaDeadLetters
from streams.emitter import KafkaEmitter
from streams.engine.lane import Lane, LaneLimits
from streams.engine.outcomes import Outcome
from streams.engine.ports import BatchAdmission, Clock
from streams.engine.standing_aside import StandingAside
from streams.faust_runtime.lane_service import Companion
from streams.followed_raw_space import FollowedRawSpace
from streams.giving_way import GivingWayWriter
from streams.group_set import GroupSet
from streams.kept_histories import KeptHistories
from streams.lanes.behaviour import BehaviourLane
from streams.lanes.collective import WayOut
from streams.lanes.encode import EncodeLane
from streams.lanes.encode_space import EncodeSpaceLane
from streams.lanes.items import ItemsLane
from streams.lanes.knowledge import KnowledgeLane
from streams.lanes.preference_requests import PreferenceGateway
from streams.llm_server import sampling_of
from streams.metrics import LaneMetrics
from streams.settings import LaneSettings, Settings
from streams.token_budget import BudgetAdmission, TokenBudget
from streams.topology import SPACE_LANE_PREFIX
from streams.user_parts import (
    history_restore,
    history_store,
    significance_of,
    tower_options,
    user_vectors,
)
from streams.user_spaces import UserSpaces
from workers.knowledge.load_domain import load_domain
from workers.knowledge.quality import QualityGate
from workers.knowledge.select_writer import select_writer
from workers.knowledge.shared_gate import SharedGate
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_pages import VllmPages
from workers.live.awaited_items import AwaitedItems
from workers.live.budget_store import BudgetStore
from workers.live.connection import Client
from workers.live.entity_store import EntityStore
from workers.live.gate_store import GateStore
from workers.live.item_vectors import ItemVectors
from workers.live.keys import Keys
from workers.live.seen import SeenStore
from workers.live.space_registry import SpaceRegistry


@dataclass(slots=True)
class MadeLane:
    """A lane and what it brings along."""

    lane: Lane[Any]
    limits: LaneLimits
    writes_redis: bool
    traced: frozenset[Outcome] = frozenset(Outcome)
    beside: list[Companion] = field(default_factory=list)
    closed: list[Companion] = field(default_factory=list)
    rebuild: Callable[[set[int]], Any] | None = None
    histories: KeptHistories | None = None
    admission: BatchAdmission | None = None
    rank: Callable[[Any], int] | None = None
    aside: StandingAside | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """What a lane shares with the engine around it."""

    settings: Settings
    metrics: LaneMetrics
    clock: Clock
    keys: Keys
    redis: Client
    """Fenced: refuses a Redis that the view guard has not admitted."""
    probe: Client
    emitter: KafkaEmitter
    group: str


class LaneMaker:
    """Makes lane `name`."""

    def __init__(self, name: str, shared: Shared) -> None:
        self._name = name
        self._settings = shared.settings
        self._metrics = shared.metrics
        self._clock = shared.clock
        self._keys = shared.keys
        self._redis = shared.redis
        self._probe = shared.probe
        self._emitter = shared.emitter
        self._group = shared.group

    def make(self) -> MadeLane:
        """Return the lane; raises ConfigurationError when it cannot be made."""
        match self._name:
            case "items":
                return self._items()
            case "knowledge" | "knowledge-backlog":
                return self._knowledge()
            case "encode":
                return self._encode()
            case "behaviour":
                return self._behaviour()
            case _:
                return self._encode_space(self._name.removeprefix(SPACE_LANE_PREFIX))

    def _items(self) -> MadeLane:
        items = self._settings.items
        limits = DecodeLimits(
            max_bytes=items.max_record_bytes,
            max_clock_skew_ms=round(items.max_clock_skew_seconds * 1000),
            version_from_record_timestamp=items.version_from == "record_timestamp",
        )
        seen = SeenStore(self._redis, self._keys)
        lane = ItemsLane(self._emitter, seen, content_policy(self._settings), limits, self._clock)
        return MadeLane(lane, lane_limits(self._settings.lane), writes_redis=True)

    def _knowledge(self) -> MadeLane:
        knowledge = self._settings.knowledge
        domain = load_domain(
            knowledge.domain,
            factors=knowledge.factors,
            max_factor_chars=knowledge.max_factor_chars,
            max_tokens=knowledge.max_tokens,
        )
        server = VllmServer(
            knowledge.vllm_url,
            knowledge.vllm_api_key.get_secret_value(),
            call_seconds=knowledge.call_seconds,
            connect_seconds=knowledge.vllm_connect_seconds,
            connections=knowledge.in_flight,
            accepts_priority=knowledge.vllm_accepts_priority,
            cache_salt=knowledge.vllm_cache_salt.get_secret_value(),
            sampling=sampling_of(knowledge),
        )
        writer = select_writer(
            knowledge.writer,
            model=knowledge.model,
            recorded_file=knowledge.recorded_file,
            server=server,
        )
        is_backlog = self._name == "knowledge-backlog"
        admission = None
        # New items never wait for the backlog.
        if is_backlog and knowledge.writer == "vllm":
            admission = BacklogAdmission(
                VllmPages(server),
                in_flight=knowledge.in_flight,
                every_seconds=knowledge.backlog_look_seconds,
                beside=knowledge.backlog_beside,
            )
            writer = GivingWayWriter(writer, admission)
        budget = None
        if knowledge.tokens_per_hour:
            budget = TokenBudget(
                BudgetStore(self._redis, self._keys),
                tokens_per_hour=knowledge.tokens_per_hour,
                clock=self._clock,
            )
        # A recorded answer takes no time: nobody needs a way out, or an idler hour.
        takes_time = knowledge.writer != "recorded"
        way_out: WayOut | None = None
        watched: list[Companion] = []
        if takes_time and not is_backlog:
            registry = SpaceRegistry(self._probe, self._keys)
            groups = GroupSet(registry, self._settings.groups.dir)
            raw_space = FollowedRawSpace(registry)
            way_out = WayOut(groups, raw_space, SharedGate(domain))
            watched = [groups.watch, raw_space.watch]
        lane = KnowledgeLane(
            self._name,
            emitter=self._emitter,
            documents=EntityStore(self._redis, self._keys),
            writer=writer,
            gate=QualityGate(domain),
            domain=domain,
            settings=knowledge,
            clock=self._clock,
            budget=budget,
            way_out=way_out,
        )
        limits = lane_limits(
            self._settings.lane, max_batch=1, max_batches_in_flight=knowledge.in_flight
        )
        self._metrics.follow_writer(self._name, lane.stats, budget)
        made = MadeLane(lane, limits, writes_redis=False, closed=[writer.aclose], aside=lane.aside)
        made.beside += watched
        if is_backlog:
            made.rank = lane.rank
        if admission is not None:
            made.admission = admission
            made.beside.append(admission.watch)
            made.closed.append(admission.aclose)
        if budget is not None:
            made.beside.append(budget.keep_telling)
            made.closed.append(budget.tell_last)
            if is_backlog:
                made.admission = BudgetAdmission(budget, made.admission)
        return made

    def _encode(self) -> MadeLane:
        # Here and not above: only the encode lanes need torch, which takes seconds to import.
        from streams.rebuild import ViewRebuild
        from streams.space_set import SpaceSet
        from workers.encoding.load_representer import load_representer

        encode = self._settings.encode
        executor = ThreadPoolExecutor(1, "encoder")
        store = EntityStore(self._redis, self._keys)
        registry = SpaceRegistry(self._probe, self._keys)
        spaces = SpaceSet(registry, encode.spaces_dir, lane=self._name)
        representer = load_representer(
            encode.spaces_dir, encode.choice, refuse_below=encode.refuse_parity_below
        )
        lane = EncodeLane(
            store=store,
            representer=representer,
            spaces=spaces,
            emitter=self._emitter,
            clock=self._clock,
            executor=executor,
        )
        rebuild = ViewRebuild(
            self._settings.kafka,
            store=store,
            registry=SpaceRegistry(self._redis, self._keys),
            representer=representer,
            spaces=spaces,
            executor=executor,
        )
        limits = lane_limits(
            self._settings.lane,
            max_batch=encode.max_batch,
            max_batch_tokens=encode.max_batch_tokens,
            max_batches_in_flight=2,
        )
        return MadeLane(
            lane, limits, writes_redis=True, beside=[spaces.watch], rebuild=rebuild.rebuild
        )

    def _encode_space(self, space: str) -> MadeLane:
        from streams.space_set import SpaceSet

        registry = SpaceRegistry(self._probe, self._keys)
        behaviour = self._settings.behaviour
        spaces = SpaceSet(registry, self._settings.encode.spaces_dir, lane=self._name)
        store = EntityStore(self._redis, self._keys)
        executor = ThreadPoolExecutor(1, "adaptor")
        vectors = user_vectors(
            behaviour,
            self._redis,
            self._keys,
            towers=OwnTower(space, spaces, tower_options(self._settings)),
            items=BackfilledItems(
                ItemVectors(self._redis, self._keys),
                entities=store,
                spaces=spaces,
                executor=executor,
            ),
            executor=executor,
        )
        lane = EncodeSpaceLane(
            space=space,
            spaces=spaces,
            store=store,
            histories=history_store(behaviour, self._redis, self._keys),
            user_vectors=vectors,
            emitter=self._emitter,
            clock=self._clock,
            executor=executor,
        )
        return MadeLane(
            lane, lane_limits(self._settings.lane), writes_redis=True, beside=[spaces.watch]
        )

    def _behaviour(self) -> MadeLane:
        behaviour = self._settings.behaviour
        significance = significance_of(behaviour)
        spaces = UserSpaces(SpaceRegistry(self._probe, self._keys), tower_options(self._settings))
        documents = EntityStore(self._redis, self._keys)
        vectors = user_vectors(
            behaviour,
            self._redis,
            self._keys,
            towers=spaces,
            executor=ThreadPoolExecutor(1, "towers"),
        )
        gate = PreferenceGateway(
            states=GateStore(self._redis, self._keys),
            documents=documents,
            spaces=spaces,
            emitter=self._emitter,
            clock=self._clock,
            significance=significance,
            settings=behaviour,
        )
        restore = history_restore(
            self._settings, self._redis, self._keys, vectors=vectors, refresh_spaces=spaces.refresh
        )
        histories = KeptHistories(
            self._settings, self._redis, self._keys, self._emitter, self._clock, restore
        )
        lane = BehaviourLane(
            histories=histories.store,
            awaited=AwaitedItems(self._redis, self._keys),
            user_vectors=vectors,
            gate=gate,
            emitter=self._emitter,
            dead_letters=KafkaDeadLetters(self._name, self._emitter),
            clock=self._clock,
            bounds=behaviour.bounds,
            limits=behaviour.limits,
            updates_topic=self._settings.kafka.topic_prefix + Topic.LIVE_UPDATES,
            group=self._group,
        )
        self._metrics.follow_behaviour(
            self._name, lane.counts, vectors.counts, gate.stats.decisions
        )
        limits = lane_limits(
            self._settings.lane,
            max_batch=behaviour.max_batch,
            max_batch_tokens=behaviour.max_batch_events,
        )
        # A trace of every event would be a second history, without bounds and without erasure.
        traced = frozenset({Outcome.DEAD_LETTERED})
        return MadeLane(
            lane,
            limits,
            writes_redis=True,
            traced=traced,
            beside=[spaces.watch],
            histories=histories,
        )


def content_policy(settings: Settings) -> ContentPolicy:
    """Return which item fields carry meaning in this deployment."""
    return ContentPolicy(frozenset(settings.items.semantic_fields))


def lane_limits(
    lane: LaneSettings,
    *,
    max_batch: int | None = None,
    max_batch_tokens: int = 1_000_000,
    max_batches_in_flight: int = 1,
) -> LaneLimits:
    """Return the engine's bounds for a lane."""
    return LaneLimits(
        max_records=lane.max_records,
        max_bytes=lane.max_bytes,
        max_batch=max_batch or lane.max_batch,
        max_batch_tokens=max_batch_tokens,
        max_batches_in_flight=max_batches_in_flight,
        linger_seconds=lane.linger_ms / 1000,
    )
