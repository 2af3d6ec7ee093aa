"""Memory: what an item costs in Redis, and what each lane process takes with 100,000 of them.

Random vectors do not compress, but Redis would not compress them either.
"""

import asyncio
import subprocess
from itertools import islice

from schemas.entities import EntityKey
from schemas.trace import TraceEntry
from streams.topology import LANES
from tests.bench.entities import entities
from tests.bench.films import EVENT_TIME_MS, produce
from tests.bench.live_deployment import RAW_SPACE, SPACE, LiveDeployment, live_deployment
from tests.bench.pairs import rounded
from tests.bench.report import Section
from tests.bench.workbench import Workbench
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, RebuiltEntity
from workers.live.keys import Keys
from workers.live.memory import bytes_per_entity, server_facts
from workers.live.seen import Seen, SeenStore
from workers.live.traces import TraceStore

_CHUNK = 256
_TRACES = (
    TraceEntry(EVENT_TIME_MS, "items", "emitted", 1, "new", ""),
    TraceEntry(EVENT_TIME_MS, "encode", "written", 1, "", "rev 1, content"),
    TraceEntry(EVENT_TIME_MS, "knowledge", "emitted", 1, "", ""),
    TraceEntry(EVENT_TIME_MS, "encode", "written", 1, "", "rev 2, individual"),
)
"""What explain shows of an item that came and got its knowledge."""

_SEEN = Seen(1, "0" * 32, removed=False, at_ms=EVENT_TIME_MS)


def run(bench: Workbench) -> Section:
    """Measure it."""
    section = Section()
    count = bench.size(100_000, 10_000)
    with live_deployment(bench, "memory.", *LANES) as deployment:
        bench.say(f"memory: loading {count:,} items into Redis")
        found = asyncio.run(_load(bench, deployment, count))
        families = {name: size for name, size in found.items() if name not in ("items", "total")}
        section.add(
            "redis_bytes_per_item",
            found,
            f"Redis, {count:,} items",
            f"{found['total']:,} bytes an item: "
            + ", ".join(f"{name} {size:,}" for name, size in families.items()),
        )
        items = bench.size(600, 150)
        bench.say(f"memory: {items} items through all lanes")
        produce(bench.bootstrap_servers, deployment.prefix, items)
        deployment.wait_without_lag()
        rss = {name: rss_megabytes(lane.pid) for name, lane in deployment.lanes.items()}
    section.add(
        "rss_mb",
        {name: rounded(size) for name, size in rss.items()},
        "RSS of each lane",
        "   ".join(f"{name} {size:,.0f} MB" for name, size in rss.items()),
    )
    return section


async def _load(bench: Workbench, deployment: LiveDeployment, count: int) -> dict[str, int]:
    """Put items into Redis; return the bytes each takes: what Redis grew by, and by family of keys.

    The families' figures are of a sample, and lack what Redis spends on the tables of keys.
    """
    redis = connect(bench.redis_url)
    keys = Keys(deployment.prefix)
    store, seen, traces = EntityStore(redis, keys), SeenStore(redis, keys), TraceStore(redis, keys)
    rows = entities(count)
    sample: list[EntityKey] = []
    try:
        before = (await server_facts(redis)).used_memory_bytes
        while chunk := list(islice(rows, _CHUNK)):
            await store.put_unless_later_rev(
                [
                    RebuiltEntity(key, 1, document, EVENT_TIME_MS, records)
                    for key, document, records in chunk
                ]
            )
            await seen.store([(key, _SEEN) for key, _, _ in chunk])
            await traces.append([(key, entry) for key, _, _ in chunk for entry in _TRACES])
            sample.append(chunk[0][0])
        grown = (await server_facts(redis)).used_memory_bytes - before
        found = await bytes_per_entity(redis, keys, sample, (RAW_SPACE, SPACE))
    finally:
        await redis.aclose()
    families = {name: round(size) for name, size in found.by_family.items()}
    return {"items": count, "total": round(grown / count), **families}


def rss_megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    done = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return int(done.stdout) / 1024
