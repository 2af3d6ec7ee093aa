"""Where a vLLM server is and how it is reached: for the writer and for whoever reads its pages."""

from dataclasses import dataclass

import httpx

from schemas.errors import ConfigurationError
from workers.knowledge.sampling import LIKELIEST, Sampling

DEPENDENCY = "vllm"
"""What everyone who talks to the server calls it in Transient."""


@dataclass(frozen=True, slots=True)
class VllmServer:
    """Where the server is and how to treat it. Times in seconds.

    `accepts_priority` needs a server started with `--scheduling-policy priority`. Callers with
    another `cache_salt` do not share this one's prefix cache, so nobody can tell from an answer's
    time what another tenant asked.
    """

    url: str
    api_key: str = ""
    call_seconds: float = 60.0
    connect_seconds: float = 5.0
    connections: int = 64
    accepts_priority: bool = False
    cache_salt: str = ""
    sampling: Sampling = LIKELIEST


def open_client(server: VllmServer) -> httpx.AsyncClient:
    """Return a client of the server, to be closed by the caller; raises ConfigurationError."""
    try:
        url = httpx.URL(server.url.rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as error:
        raise ConfigurationError("FRESHET_KNOWLEDGE__VLLM_URL", str(error)) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError("FRESHET_KNOWLEDGE__VLLM_URL", "not an http(s) address")
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {server.api_key}"} if server.api_key else {},
        # The whole call has one deadline; only connecting has a shorter one of its own.
        timeout=httpx.Timeout(server.call_seconds, connect=server.connect_seconds),
        limits=httpx.Limits(
            max_connections=server.connections, max_keepalive_connections=server.connections
        ),
        trust_env=False,
    )
