"""Store: entities written a second through EntityStore.put, with raw parts and 256-d vectors."""

import asyncio
import time
from itertools import islice

from deploy.local.redis_server import RedisServer
from streams.settings import EncodeSettings
from tests.bench.entities import entities
from tests.bench.pairs import Run
from tests.bench.report import Section
from tests.bench.workbench import Workbench
from workers.live.connection import connect
from workers.live.entity_store import EntityStore, EntityWrite
from workers.live.keys import Keys

BATCH = EncodeSettings().max_batch


def run(bench: Workbench) -> Section:
    """Measure it: batches as the encode lane writes them, one after the other."""
    count = bench.size(20_000, 5_000)
    with RedisServer(bench.folder / "store") as server:
        runs = [asyncio.run(_write(server.url, f"{n}.", count)) for n in range(bench.rounds)]
    section = Section()
    what = f"EntityStore.put, batches of {BATCH}"
    section.add_runs("put", runs, what, "entities")
    return section


async def _write(url: str, prefix: str, count: int) -> Run:
    redis = connect(url)
    store = EntityStore(redis, Keys(prefix))
    rows = entities(count)
    batches = []
    while some := list(islice(rows, BATCH)):
        batches.append([EntityWrite(key, 0, document, records) for key, document, records in some])
    started, cpu_started = time.perf_counter(), time.process_time()
    for batch in batches:
        put = await store.put(batch)
        assert all(put)
    done = Run(count, time.perf_counter() - started, time.process_time() - cpu_started)
    await redis.aclose()
    return done
