"""Requests for knowledge on Kafka, and the moment at which each answer is there to be read."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import KnowledgeRequest, RequestKind
from schemas.topics import Topic
from tests.bench.films import EVENT_TIME_MS, films, knowledge
from tests.bench.workbench import BenchFailedError
from workers.knowledge.prompts import Domain, Prompt, item_prompt
from workers.knowledge.quality import check
from workers.knowledge.writer import Answer

_POLL_MS = 50
_LONGEST_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A film to ask about; the end of its id is its number in the demo's catalogue."""

    entity: EntityKey
    fields: Mapping[str, Json]

    def prompt(self, domain: Domain) -> Prompt:
        """Return the prompt that the lane makes of a request about it."""
        return item_prompt(domain, self.entity, self.fields)

    def request(self, kind: RequestKind) -> KnowledgeRequest:
        """Return a request about it, asked now."""
        return KnowledgeRequest(
            entity=self.entity,
            kind=kind,
            version=1,
            fields=self.fields,
            content_fingerprint=content_fingerprint(self.fields),
            event_time_ms=EVENT_TIME_MS,
            requested_at_ms=round(time.time() * 1000),
        )


def subjects(prefix: str, domain: Domain, *, first: int = 0) -> Iterator[Subject]:
    """Yield films whose recorded answers pass the gate, from film `first` on, each one once."""
    for number in range(first, len(films())):
        subject = Subject(EntityKey(EntityKind.ITEM, f"{prefix}-{number}"), films()[number])
        answer = Answer(knowledge()[number], 0, 0, "")
        if check(answer, subject.fields, domain) is None:
            yield subject


class Requests:
    """A producer of requests, as a context manager."""

    def __init__(self, bootstrap_servers: str, topic_prefix: str) -> None:
        self._prefix = topic_prefix
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=0)

    def send(self, topic: Topic, kind: RequestKind, asked: Sequence[Subject]) -> float:
        """Put requests on a topic; return when the first was acknowledged, once all are.

        By `time.perf_counter`, noted by the producer's own thread.
        """
        acknowledged: list[float] = []
        futures = [
            self._producer.send(
                self._prefix + topic,
                key=subject.entity.encode(),
                value=subject.request(kind).encode(),
            ).add_callback(lambda _metadata: acknowledged.append(time.perf_counter()))
            for subject in asked
        ]
        for future in futures:
            future.get(30)
        return acknowledged[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._producer.close(5)


class AnswerWatch:
    """A thread that notes when the first register of each entity came out on `knowledge`."""

    def __init__(self, bootstrap_servers: str, topic_prefix: str) -> None:
        self._topic = topic_prefix + Topic.KNOWLEDGE
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            fetch_max_wait_ms=_POLL_MS,
            enable_auto_commit=False,
        )
        self._came = threading.Condition()
        self._at: dict[bytes, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def await_all(self, asked: Sequence[Subject]) -> float:
        """Return the `time.perf_counter` at which the last of their answers came."""
        keys = [subject.entity.encode() for subject in asked]
        with self._came:
            there = self._came.wait_for(
                lambda: all(key in self._at for key in keys), timeout=_LONGEST_SECONDS
            )
            if not there:
                missing = sum(key not in self._at for key in keys)
                raise BenchFailedError(
                    f"{missing} of {len(keys)} answers did not come in {_LONGEST_SECONDS:g} s"
                )
            return max(self._at[key] for key in keys)

    def __enter__(self) -> Self:
        partitions = self._consumer.partitions_for_topic(self._topic) or ()
        self._consumer.assign([TopicPartition(self._topic, number) for number in partitions])
        self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            self._consumer.position(partition)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(10)
        self._consumer.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            batches = self._consumer.poll(timeout_ms=_POLL_MS)
            now = time.perf_counter()
            if not batches:
                continue
            with self._came:
                for records in batches.values():
                    for record in records:
                        self._at.setdefault(record.key, now)
                self._came.notify_all()
