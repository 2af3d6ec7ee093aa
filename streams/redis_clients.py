"""A Redis client and key names for commands, from the settings: unfenced, closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from streams.settings import RedisSettings
from workers.live.connection import Client, connect
from workers.live.keys import Keys


@dataclass(frozen=True, slots=True)
class OpenRedis:
    """A client and the names of this deployment's keys."""

    client: Client
    keys: Keys


@asynccontextmanager
async def open_redis(settings: RedisSettings) -> AsyncIterator[OpenRedis]:
    """Yield a client for the length of a command; raises ConfigurationError on a wrong URL."""
    client = connect(
        settings.url.get_secret_value(),
        timeout_seconds=settings.timeout_seconds,
        ssl_cafile=settings.ssl_cafile,
        client_name="freshet-cli",
    )
    try:
        yield OpenRedis(client, Keys(settings.key_prefix))
    finally:
        await client.aclose()
