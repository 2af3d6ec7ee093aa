"""Read: LiveVectors against what one would write without it, a hash an item and pipelined HMGETs.

Both ask for the same random ids on one connection each, and end with the same arrays: the vectors,
the found mask, and six columns of metadata. A run is some hundred requests in a row.
"""

import random
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import redis

from deploy.local.redis_server import RedisServer
from schemas.entities import EntityKind
from schemas.vector_record import VectorHeader, VectorRecord
from tests.bench.pairs import alternately, percentile, ratio
from tests.bench.report import Section
from tests.bench.workbench import Workbench
from tests.live_builders import space_record
from workers.live.keys import Keys
from workers.live.live_vectors import LiveVectors, View

IDS = 500
DIM = 256
TARGET = 8.0

_SPACE = "bench"
_FIELDS = (
    "vector",
    "stage",
    "rev",
    "content_version",
    "factors_version",
    "event_time_ms",
    "written_at_ms",
)
_FILL_CHUNK = 2_000


def run(bench: Workbench) -> Section:
    """Measure it."""
    items = bench.size(20_000, 5_000)
    times: dict[str, list[list[float]]] = {"live": [], "hmget": []}
    with RedisServer(bench.folder / "read") as server, redis.Redis.from_url(server.url) as client:
        _fill(client, items)
        with LiveVectors(server.url) as live, live.pin() as view:
            calls: dict[str, Callable[[list[str]], object]] = {
                "live": view.get,
                "hmget": lambda keys: _by_hashes(client, keys),
            }
            _check(client, view, _requests(items, 1, seed=-1)[0])
            for number, name in alternately(tuple(calls), bench.rounds):
                requests = _requests(items, bench.size(400, 150), seed=number)
                times[name].append([_milliseconds(calls[name], keys) for keys in requests])
                bench.say(
                    f"read: round {number + 1}/{bench.rounds} {name}: "
                    f"p50 {percentile(times[name][-1], 0.5):.2f} ms"
                )
    ours, theirs = times["live"], times["hmget"]
    section = Section()
    what = f"{IDS} ids x {DIM} float16"
    section.add_latency("live_vectors", [ms for run in ours for ms in run], f"LiveVectors, {what}")
    section.add_latency("hmget", [ms for run in theirs for ms in run], "pipelined HMGET, the same")
    for share, target in ((0.5, TARGET), (0.99, None)):
        section.add_ratio(
            f"hmget_to_live_vectors_p{round(share * 100)}",
            ratio(
                [percentile(times, share) for times in theirs],
                [percentile(times, share) for times in ours],
                target=target,
            ),
            f"times faster at p{round(share * 100)}",
        )
    return section


def _fill(client: "redis.Redis", items: int) -> None:
    rng = np.random.default_rng(0)
    keys = Keys()
    client.hset(keys.spaces(), _SPACE, space_record(_SPACE, DIM).model_dump_json())
    client.set(keys.alias(EntityKind.ITEM), _SPACE)
    for start in range(0, items, _FILL_CHUNK):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(items, start + _FILL_CHUNK)):
            vector = rng.standard_normal(DIM).astype(np.float16)
            header = VectorHeader(1, "float16", DIM, 3, 1, number, -1, 1_000, 2_000)
            pipeline.set(f"vec:{_SPACE}:{{item:{number}}}", VectorRecord(header, vector).encode())
            values = (vector.tobytes(), 1, 1, number, -1, 1_000, 2_000)
            pipeline.hset(f"hash:item:{number}", mapping=dict(zip(_FIELDS, values, strict=True)))
        pipeline.execute()


def _requests(items: int, count: int, *, seed: int) -> list[list[str]]:
    chance = random.Random(seed)
    return [[f"item:{chance.randrange(items)}" for _ in range(IDS)] for _ in range(count)]


def _by_hashes(client: "redis.Redis", keys: list[str]) -> tuple[npt.NDArray, ...]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hmget(f"hash:{key}", _FIELDS)
    rows = pipeline.execute()
    found = np.array([row[0] is not None for row in rows])
    vectors = np.zeros((len(keys), DIM), np.float16)
    for number, row in enumerate(rows):
        if row[0] is not None:
            vectors[number] = np.frombuffer(row[0], np.float16)
    columns = [
        np.array([-1 if row[field] is None else int(row[field]) for row in rows])
        for field in range(1, len(_FIELDS))
    ]
    return vectors, found, *columns


def _check(client: "redis.Redis", view: View, keys: list[str]) -> None:
    """Both must give the same arrays, or there is nothing to compare."""
    got, (vectors, found, *_) = view.get(keys), _by_hashes(client, keys)
    np.testing.assert_array_equal(got.values, vectors)
    np.testing.assert_array_equal(got.found, found)


def _milliseconds(call: Callable[[list[str]], object], keys: list[str]) -> float:
    started = time.perf_counter()
    call(keys)
    return (time.perf_counter() - started) * 1_000
