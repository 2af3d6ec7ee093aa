"""One lane process from start to exit: pages up, dependencies reached, then the Faust worker."""

import asyncio
import signal
from types import FrameType

import structlog

from streams.faust_runtime.run_worker import run_worker
from streams.health import Health, HealthServer
from streams.logs import configure
from streams.metrics import LaneMetrics
from streams.preflight import wait_until_reachable
from streams.settings import Settings
from streams.topic_admin import require
from streams.topology import lane_topics
from streams.vitals import Vitals
from workers.live.connection import connect, run_id

log = structlog.get_logger("freshet.lane")


class _StoppedEarly(BaseException):
    """SIGTERM or SIGINT came before the worker had handlers of its own."""


def run_lane(name: str, settings: Settings) -> int:
    """Run lane `name` until it is told to stop; return the exit code.

    0 after a clean stop, 1 after a crash, 75 when the grace period was over, 70 when it stalled.
    Raises ConfigurationError for what no waiting can mend.
    """
    configure(settings.log_level, settings.log_format)
    needed = lane_topics(name)
    vitals = Vitals()
    health = Health(name, vitals)
    metrics = LaneMetrics(name)
    server = HealthServer(
        health, metrics.exposition, host=settings.web.host, port=settings.web.port
    )
    server.start()
    log.info("lane_starting", lane=name, host=settings.web.host, port=server.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop_early)
    try:
        topics = [settings.kafka.topic_prefix + topic for topic in needed]
        wait_until_reachable(
            {
                "kafka": lambda: require(settings.kafka, topics, (name,)),
                "redis": lambda: asyncio.run(_reach_redis(settings)),
            },
            health.starting,
        )
        # Not before: a lane that has to wait should not make its operator wait for torch, too.
        from streams.assembly import assemble

        app = assemble(name, settings, health, metrics)
        health.starting.pop("lane")
        log.info("lane_started", lane=name)
        code = run_worker(app)
    except _StoppedEarly:
        code = 0
    finally:
        server.stop()
    log.info("lane_stopped", lane=name, code=code)
    return code


def _stop_early(_number: int, _frame: FrameType | None) -> None:
    raise _StoppedEarly


async def _reach_redis(settings: Settings) -> None:
    redis = connect(
        settings.redis.url.get_secret_value(),
        timeout_seconds=settings.redis.timeout_seconds,
        ssl_cafile=settings.redis.ssl_cafile,
    )
    try:
        await run_id(redis)
    finally:
        await redis.aclose()
