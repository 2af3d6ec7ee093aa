"""Where a lane's dead letters go: its own topic, acknowledged before the record is settled."""

from collections.abc import Sequence

from schemas.dead_letter import DeadLetter
from schemas.topics import dead_letters_topic
from streams.emitter import Emitter, Outgoing


class KafkaDeadLetters:
    """The engine's DeadLetterSink on an Emitter."""

    def __init__(self, lane: str, emitter: Emitter) -> None:
        self._topic = dead_letters_topic(lane)
        self._emitter = emitter

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Return once the broker has acknowledged all; raises Transient."""
        await self._emitter.emit(
            [
                Outgoing(self._topic, letter.key, letter.value, letter.all_headers())
                for letter in letters
            ]
        )
