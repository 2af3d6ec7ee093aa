"""An Emitter that keeps what was produced, and fails when told to."""

from collections import deque
from collections.abc import Sequence

from schemas.errors import Transient
from schemas.knowledge import KnowledgeRequest, KnowledgeUpdate
from schemas.topics import Topic
from streams.emitter import Emitter, Outgoing


class FakeEmitter(Emitter):
    """`sent` holds what the broker has, in order; `calls` one list for each emit.

    The next calls raise `failures`, one each. As with a real broker, some of a failed call's
    messages may be there all the same: `written_before_failing` of them.
    """

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.calls: list[list[Outgoing]] = []
        self.failures: deque[Exception] = deque()
        self.written_before_failing = 0

    async def emit(self, messages: Sequence[Outgoing]) -> None:
        self.calls.append(list(messages))
        if self.failures:
            self.sent += messages[: self.written_before_failing]
            raise self.failures.popleft()
        self.sent += messages

    def fail(self, times: int = 1) -> None:
        self.failures.extend(Transient("kafka", "scripted") for _ in range(times))

    def on(self, topic: str) -> list[Outgoing]:
        return [message for message in self.sent if message.topic == topic]

    @property
    def updates(self) -> list[KnowledgeUpdate]:
        return [KnowledgeUpdate.decode(sent.value or b"") for sent in self.on(Topic.KNOWLEDGE)]

    def requests(self, topic: str = Topic.KNOWLEDGE_REQUESTS) -> list[KnowledgeRequest]:
        return [KnowledgeRequest.decode(sent.value or b"") for sent in self.on(topic)]
