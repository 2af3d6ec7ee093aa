"""What must hold of a deployment at every moment, and once it is quiet; for fault tests."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.events import DecodeLimits, decode_catalog_event
from schemas.knowledge import Document, KnowledgeRequest, KnowledgeUpdate, RegisterName
from streams.lane_making import content_policy
from streams.producers import CatalogProducer
from tests.deployment import Deployment
from tests.document_equality import assert_converged
from tests.feed import FeedEvent, changes_by_item
from workers.adaptors.space_files import load_space
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_representer import load_representer
from workers.knowledge.load_domain import load_domain
from workers.knowledge.prompts import prompt_id
from workers.live.connection import Client, connect
from workers.live.entity_records import StoredEntity
from workers.live.entity_store import EntityStore
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors
from workers.live.seen import SeenStore
from workers.live.seen_record import Seen

T = TypeVar("T")
E = TypeVar("E")
_LIMITS = DecodeLimits()

LEAST_COSINE = 0.9999
"""Encoders differ in their last bits by batch; float16 rounds both."""


@contextmanager
def catalogue_sender(deployment: Deployment) -> Iterator[Callable[[FeedEvent], None]]:
    """Give a function that sends events of items; all are acknowledged in the end."""
    kafka = deployment.settings.kafka
    with CatalogProducer(kafka.bootstrap_servers, topic_prefix=kafka.topic_prefix) as producer:
        yield lambda event: producer.send(event.to_event())
        report = producer.flush(120)
        assert not report.failed, report.failed[:3]


@dataclass(slots=True)
class Traffic(Generic[E]):
    """Sends a feed at a steady rate from its own thread; `sent` counts the events taken so far."""

    deployment: Deployment
    feed: Sequence[E]
    per_second: float
    sender: Callable[[Deployment], AbstractContextManager[Callable[[Any], None]]] = catalogue_sender
    sent: int = 0
    failure: BaseException | None = None
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self, timeout: float = 180.0) -> None:
        """Wait until all is sent and acknowledged."""
        assert self._thread is not None
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"{self.sent} of {len(self.feed)} events sent"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            with self.sender(self.deployment) as send:
                started = time.monotonic()
                for count, event in enumerate(self.feed, 1):
                    send(event)
                    self.sent = count
                    time.sleep(max(0.0, started + count / self.per_second - time.monotonic()))
        except BaseException as error:  # noqa: BLE001  # raised again in finish()
            self.failure = error


def with_redis(deployment: Deployment, use: Callable[[Client, Keys], Awaitable[T]]) -> T:
    """Return what `use` reads from the deployment's Redis."""

    async def run() -> T:
        redis = connect(deployment.redis_url)
        try:
            return await use(redis, Keys(deployment.prefix))
        finally:
            await redis.aclose()

    return asyncio.run(run())


def in_redis(deployment: Deployment, use: Callable[[EntityStore, SeenStore], Awaitable[T]]) -> T:
    """Return what `use` reads with stores of the deployment."""
    return with_redis(
        deployment, lambda redis, keys: use(EntityStore(redis, keys), SeenStore(redis, keys))
    )


def stored_documents(deployment: Deployment, keys: Sequence[EntityKey]) -> list[Document]:
    """Return documents as Redis holds them."""

    async def load(store: EntityStore, _seen: SeenStore) -> list[Document]:
        return [entity.document for entity in await store.load(keys, None)]

    return in_redis(deployment, load)


def assert_commits_are_covered(deployment: Deployment, lane: str) -> None:
    """Assert that no committed offset of the lane is ahead of durable effects.

    For a lane that is not running: what it did is all there is.
    """
    inputs = deployment.inputs(lane)
    settled = records_before(inputs, deployment.committed(lane))
    match lane:
        case "items":
            _assert_items_covered(deployment, settled)
        case "knowledge":
            backlog = deployment.records(deployment.prefix + "knowledge.backlog")
            _assert_requests_covered(deployment, settled, waiting=backlog)
        case "knowledge-backlog":
            # What gave way is at the topic's tail.
            done = {(record.partition, record.offset) for record in settled}
            rest = [one for one in inputs if (one.partition, one.offset) not in done]
            _assert_requests_covered(deployment, settled, waiting=rest)
        case "encode":
            _assert_registers_covered(deployment, settled)


def records_before(records: Sequence[Any], offsets: Mapping[tuple[str, int], int]) -> list[Any]:
    """Return the records whose (topic, partition) has a greater offset."""
    return [
        record
        for record in records
        if record.offset < offsets.get((record.topic, record.partition), 0)
    ]


def _assert_items_covered(deployment: Deployment, settled: Sequence[Any]) -> None:
    newest: dict[EntityKey, int] = {}
    for record in settled:
        key = EntityKey.parse(record.key)
        event = decode_catalog_event(
            record.key,
            record.value,
            record.headers,
            timestamp_ms=record.timestamp,
            now_ms=record.timestamp,
            limits=_LIMITS,
        )
        newest[key] = max(newest.get(key, 0), event.version)
    keys = list(newest)

    async def load(_store: EntityStore, seen: SeenStore) -> list[Seen | None]:
        return await seen.load(keys)

    for key, seen in zip(keys, in_redis(deployment, load), strict=True):
        assert seen is not None, f"{key} is committed but was never seen"
        assert seen.version >= newest[key], f"{key}: {seen.version} < {newest[key]}"


def _assert_requests_covered(
    deployment: Deployment, settled: Sequence[Any], *, waiting: Sequence[Any]
) -> None:
    written: dict[EntityKey, int] = {}
    for record in deployment.records(deployment.prefix + "knowledge"):
        update = KnowledgeUpdate.decode(record.value)
        if update.register not in (RegisterName.CONTENT, RegisterName.COLLECTIVE):
            known = written.get(update.entity, -1)
            written[update.entity] = max(known, update.value.version)
    asked: dict[EntityKey, int] = {}
    for record in deployment.records(deployment.prefix + "knowledge.requests"):
        request = KnowledgeRequest.decode(record.value)
        asked[request.entity] = max(asked.get(request.entity, -1), request.version)
    deferred: dict[EntityKey, int] = {}
    for record in waiting:
        request = KnowledgeRequest.decode(record.value)
        deferred[request.entity] = max(deferred.get(request.entity, -1), request.version)
    for record in settled:
        request = KnowledgeRequest.decode(record.value)
        answered = written.get(request.entity, -1) >= request.version
        outdated = asked.get(request.entity, -1) > request.version
        waits = deferred.get(request.entity, -1) >= request.version
        assert answered or outdated or waits, (
            f"{request.entity} v{request.version} has no knowledge"
        )


def _assert_registers_covered(deployment: Deployment, settled: Sequence[Any]) -> None:
    news: dict[EntityKey, Document] = {}
    for record in settled:
        update = KnowledgeUpdate.decode(record.value)
        document = Document.of(update.register, update.value)
        news[update.entity] = news.get(update.entity, Document()).merge(document)
    keys = list(news)
    entities = deployment.entities()
    for key, stored in zip(keys, stored_documents(deployment, keys), strict=True):
        assert stored.merge(news[key]) == stored, f"{key} is committed but not in Redis"
        produced = entities[str(key)].document
        assert produced.merge(news[key]) == produced, f"{key} is committed but not in entities"


def assert_all_arrived(deployment: Deployment, feed: Sequence[FeedEvent]) -> None:
    """Assert that a quiet deployment holds exactly what an in-order run of the feed ends with.

    Documents in Redis and in `entities`, the items lane's own register, and every vector.
    """
    settings = deployment.settings
    knowledge = settings.knowledge
    domain = load_domain(
        knowledge.domain,
        factors=knowledge.factors,
        max_factor_chars=knowledge.max_factor_chars,
        max_tokens=knowledge.max_tokens,
    )
    changes = changes_by_item(feed, content_policy(settings))
    keys = [EntityKey.item(item) for item in changes]

    async def load(
        store: EntityStore, seen: SeenStore
    ) -> tuple[list[StoredEntity], list[Seen | None]]:
        return await store.load(keys, None), await seen.load(keys)

    stored, seen = in_redis(deployment, load)
    entities = deployment.entities()
    for entity, last, events in zip(stored, seen, changes.values(), strict=True):
        produced = entities[str(entity.key)]
        assert produced.document == entity.document, f"{entity.key}: entities differs from Redis"
        assert produced.rev == entity.rev
        for document in (entity.document, produced.document):
            assert_converged(
                events, document, last, prompt_id=prompt_id(domain), model=knowledge.model
            )
    assert_vectors_follow(deployment, [(entity.key, entity.document) for entity in stored])


def assert_vectors_follow(
    deployment: Deployment, documents: Sequence[tuple[EntityKey, Document]]
) -> None:
    """Assert that rankers read the vectors that these documents ask for, and no removed item's."""
    spaces_dir = deployment.root / "spaces"
    representer = load_representer(spaces_dir, EncoderChoice(), refuse_below=0.99)
    live = LiveVectors(deployment.redis_url, key_prefix=deployment.prefix)
    with live.pin() as view:
        got = view.get([str(key) for key, _ in documents])
    adaptor = load_space(spaces_dir, got.space).adaptor
    rows = [(None, None, representer.texts(document)) for _, document in documents]
    values, mask, _ = representer.represent(rows)
    wanted = adaptor.apply(values, mask)
    for index, (key, document) in enumerate(documents):
        assert bool(got.found[index]) == (document.content is not None), str(key)
        if document.content is None:
            continue
        assert got.stages[index] == document.stage, str(key)
        assert cosine(got.values[index], wanted[index]) >= LEAST_COSINE, str(key)


def cosine(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> float:
    """Return the cosine of two vectors, in double precision."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
