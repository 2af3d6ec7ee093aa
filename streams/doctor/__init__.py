"""`freshet doctor`: looks at everything a deployment leans on and says what to do about it.

Every look is bounded and on its own, so one dead dependency does not hide the others. Reads only.
"""

import asyncio
from collections.abc import Callable

from schemas.errors import FreshetError
from streams.doctor.finding import Finding, Look
from streams.doctor.kafka_looks import (
    look_at_dead_letters,
    look_at_kafka,
    look_at_lanes,
    look_at_topics,
)
from streams.doctor.redis_looks import look_at_redis, look_at_spaces, look_at_view
from streams.doctor.writer_looks import look_at_encoder, look_at_writer
from streams.settings import Settings

__all__ = ["Finding", "run"]

LOOK_SECONDS = 60.0

_ADVICE_BY_SUBJECT = {
    "kafka": "start Kafka, or point FRESHET_KAFKA__BOOTSTRAP_SERVERS at it",
    "redis": "start Redis, or point FRESHET_REDIS__URL at it",
    "encoder": "use the encoder that the space was made with, or fit a new space",
    "spaces": "run: freshet spaces fit, create and activate",
    "writer": "start the vLLM server, or point FRESHET_KNOWLEDGE__VLLM_URL at it",
}


async def run(
    settings: Settings,
    *,
    encoder: bool = True,
    on_look: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Return what was found, in the order looked; never raises for what it looks at.

    `encoder` False leaves out the parity probe, which loads the model. `on_look(subject)`.
    """
    looks: list[tuple[str, Look]] = [
        ("kafka", lambda: look_at_kafka(settings.kafka)),
        ("topics", lambda: look_at_topics(settings.kafka)),
        ("redis", lambda: look_at_redis(settings)),
        ("view", lambda: look_at_view(settings)),
        ("spaces", lambda: look_at_spaces(settings)),
        ("lanes", lambda: look_at_lanes(settings)),
        ("dead letters", lambda: look_at_dead_letters(settings.kafka)),
        ("writer", lambda: look_at_writer(settings)),
    ]
    if encoder:
        looks.append(("encoder", lambda: look_at_encoder(settings)))
    findings: list[Finding] = []
    for subject, look in looks:
        if on_look is not None:
            on_look(subject)
        findings += await _bounded(subject, look)
    return findings


async def _bounded(subject: str, look: Look) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            async for finding in look():
                found.append(finding)  # noqa: PERF401  # what came before an error counts
    except FreshetError as error:
        found.append(Finding(False, subject, str(error), _ADVICE_BY_SUBJECT.get(subject, "")))
    except TimeoutError:
        found.append(Finding(False, subject, f"no answer within {LOOK_SECONDS:g} s"))
    return found
