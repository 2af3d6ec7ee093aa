"""A burst of new items that a language model has no time for: how soon each knows what.

All items are sent at once to the whole item path, with groups in use and a server that answers so
many requests a second: a fake one, or with --vllm-url a real one. The bare encode time of the same
texts, measured before in the same process, is what the time to content vectors is held against.

Example, with the small model that is bundled, on a CPU (the server's key is taken from
VLLM_API_KEY): freshet llm serve --max-num-seqs 8 --port 8000, and then
python -m tests.bench.burst --vllm-url http://127.0.0.1:8000 --model smollm2-135m-instruct
--places 4 --share-members 6 --call-seconds 120
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from deploy.demo.lane_processes import LaneFigures
from deploy.local.stack import LocalStack
from schemas.entities import EntityKey, Stage
from schemas.knowledge import Content, Document
from streams.llm_server import BUNDLED_WRITING
from streams.logs import configure, silence_third_parties
from streams.producers import CatalogProducer
from tests.bench.burst_report import Burst, Progress, section_of
from tests.bench.encode import bare_model, encode_bare
from tests.bench.films import catalogue, films, write_catalogue
from tests.bench.live_deployment import LiveDeployment, live_deployment
from tests.bench.pairs import MIN_PAIRS
from tests.bench.report import Section, json_line, table
from tests.bench.workbench import REPOSITORY, BenchFailedError, Workbench, environment
from tests.fakes.paced_vllm_server import PacedServerProcess
from workers.encoding.representation import DEFAULT_PARTS, part_texts
from workers.live.live_vectors import LiveVectors

LANES = ("items", "knowledge", "knowledge-backlog", "encode")
GROUPED_FILMS = 400
CUT = "bench"

_LOOK_SECONDS = 0.25
_COMMAND_SECONDS = 240.0
_PATIENCE_SECONDS = 600.0


def run(bench: Workbench) -> Section:
    """Measure it with the fake server."""
    quick = Burst(items=400, groups=8, longest_wait_seconds=40.0)
    return measure(bench, quick if bench.quick else Burst())


def measure(bench: Workbench, burst: Burst) -> Section:
    """Send the burst and watch it."""
    torch.set_num_threads(1)  # as the encode lane
    bare_seconds = _bare_encode_seconds(burst.items)
    bench.say(f"burst: the texts of {burst.items} items take {bare_seconds:.1f} s to encode")
    with (
        _server(burst) as url,
        live_deployment(bench, "burst.", *LANES, extra=_variables(bench, burst, url)) as lanes,
    ):
        _put_groups_to_use(bench, lanes, burst)
        keys = [str(EntityKey.item(id_)) for id_, _ in catalogue(burst.items)]
        began = time.perf_counter()
        with CatalogProducer(
            lanes.settings.kafka.bootstrap_servers, topic_prefix=lanes.prefix
        ) as producer:
            for item_id, fields in catalogue(burst.items):
                producer.upsert(item_id, 1, fields)
            producer.flush(timeout=120)
        progress = _watch(bench, lanes, burst, keys, began)
        figures = _figures(lanes)
    return section_of(burst, bare_seconds, progress, figures)


def _bare_encode_seconds(items: int) -> float:
    documents = [Document(content=Content(1, fields, "", 0)) for _, fields in catalogue(items)]
    texts = [text for one in documents for text in part_texts(one, DEFAULT_PARTS) if text]
    model = bare_model()
    encode_bare(model, texts[:64])
    began = time.perf_counter()
    encode_bare(model, texts)
    return time.perf_counter() - began


@contextmanager
def _server(burst: Burst) -> Iterator[str]:
    if burst.vllm_url:
        yield burst.vllm_url
        return
    with PacedServerProcess(
        answers_per_second=burst.answers_per_second, places=burst.places
    ) as server:
        yield server.url


def _variables(bench: Workbench, burst: Burst, url: str) -> Mapping[str, str]:
    # A small model on a CPU, as `freshet llm serve` has lanes write with it.
    real = {
        **{f"FRESHET_KNOWLEDGE__{name.upper()}": f"{it:g}" for name, it in BUNDLED_WRITING.items()},
        "FRESHET_KNOWLEDGE__BACKLOG_BESIDE": "0",
    }
    return {
        **(real if burst.vllm_url else {}),
        "FRESHET_KNOWLEDGE__WRITER": "vllm",
        "FRESHET_KNOWLEDGE__MODEL": burst.model,
        "FRESHET_KNOWLEDGE__VLLM_URL": url,
        "FRESHET_KNOWLEDGE__VLLM_API_KEY": os.environ.get("VLLM_API_KEY", ""),
        "FRESHET_KNOWLEDGE__VLLM_ACCEPTS_PRIORITY": "true",
        "FRESHET_KNOWLEDGE__IN_FLIGHT": str(2 * burst.places),
        "FRESHET_KNOWLEDGE__OVERLOAD_SECONDS": str(burst.overload_seconds),
        "FRESHET_KNOWLEDGE__LONGEST_WAIT_SECONDS": str(burst.longest_wait_seconds),
        "FRESHET_KNOWLEDGE__SHARE_MEMBERS": str(burst.share_members),
        "FRESHET_KNOWLEDGE__CALL_SECONDS": str(burst.call_seconds),
        "FRESHET_GROUPS__DIR": str(bench.folder / "groups"),
    }


def _put_groups_to_use(bench: Workbench, lanes: LiveDeployment, burst: Burst) -> None:
    """Cut films that are known already; what comes in the burst is none of them."""
    known = bench.folder / "grouped-catalog.jsonl"
    write_catalogue(known, min(GROUPED_FILMS, len(films())))
    bench.say(f"burst: cutting {GROUPED_FILMS} films into {burst.groups} groups")
    for arguments in (
        ("build", CUT, "--catalog", str(known), "--groups", str(burst.groups)),
        ("activate", CUT),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli.main", "groups", *arguments],
            cwd=REPOSITORY,
            env=environment(lanes.variables),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            raise BenchFailedError(f"freshet groups {arguments[0]} failed:\n{done.stderr}")


def _watch(
    bench: Workbench, lanes: LiveDeployment, burst: Burst, keys: Sequence[str], began: float
) -> Progress:
    """Look as a ranker does, until the time is up and no request waits."""
    progress = Progress()
    redis = lanes.settings.redis
    with LiveVectors(redis.url.get_secret_value(), key_prefix=redis.key_prefix) as live:
        while True:
            with live.pin() as view:
                progress.stages = [Stage(stage) for stage in view.get(keys).stages]
            progress.seconds = time.perf_counter() - began
            for stage in (Stage.CONTENT, Stage.COLLECTIVE, Stage.INDIVIDUAL):
                if stage not in progress.since and progress.share(stage) == 1:
                    progress.since[stage] = progress.seconds
                    bench.say(
                        f"burst: all {len(keys)} items at least {stage.name.lower()} after "
                        f"{progress.seconds:.1f} s"
                    )
            lane = lanes.lanes["knowledge"]
            lane.check()
            progress.oldest_seconds = max(progress.oldest_seconds, lane.oldest_seconds())
            figures = lane.figures()
            if not progress.settled_seconds and figures and figures.settled >= len(keys):
                progress.settled_seconds = progress.seconds
                progress.told_share = progress.share(Stage.COLLECTIVE)
                bench.say(f"burst: no request waits after {progress.seconds:.1f} s")
            is_over = progress.seconds >= burst.seconds or Stage.INDIVIDUAL in progress.since
            if progress.settled_seconds and Stage.CONTENT in progress.since and is_over:
                return progress
            if progress.seconds > burst.seconds + _PATIENCE_SECONDS:
                raise BenchFailedError(
                    f"requests still wait after {progress.seconds:.0f} s; "
                    f"{progress.share(Stage.COLLECTIVE):.0%} of the items know anything from a "
                    "language model"
                )
            time.sleep(_LOOK_SECONDS)


def _figures(lanes: LiveDeployment) -> dict[str, LaneFigures]:
    return {
        name: lanes.lanes[name].figures() or LaneFigures(name)
        for name in ("knowledge", "knowledge-backlog")
    }


def main() -> int:
    """Run it by itself, with whatever server and burst the arguments say."""
    burst, as_json = _arguments()
    configure("warning", "console")
    silence_third_parties()
    with (
        tempfile.TemporaryDirectory(prefix="freshet-bench-") as folder,
        LocalStack(Path(folder) / "stack") as stack,
    ):
        bench = Workbench(stack, Path(folder), Console(stderr=True), MIN_PAIRS, quick=False)
        bench.say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
        try:
            found = {"burst": measure(bench, burst)}
        except BenchFailedError as error:
            bench.console.print(str(error), style="red", markup=False, highlight=False)
            return 1
    if not as_json:
        Console().print(table(found))
    print(json_line(found))
    return 0


def _arguments() -> tuple[Burst, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.burst",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Burst()
    for name, meaning in (
        ("items", "new items, all at once"),
        ("groups", "groups that known films are cut into"),
        ("overload-seconds", "requests that waited longer share a call with others"),
        ("longest-wait-seconds", "requests that no call came to by then are left to the backlog"),
        ("call-seconds", "deadline of a call"),
        ("seconds", "how long to watch, from the first event"),
        ("answers-per-second", "pace of the fake server"),
        ("places", "requests that the server answers at a time"),
        ("share-members", "items that have a call in common, at most"),
        ("vllm-url", "a real server instead of the fake one"),
        ("model", "the model it serves"),
    ):
        known = getattr(default, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=type(known), default=known, help=f"{meaning} (default: {known!r})"
        )
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    return Burst(**given), as_json


if __name__ == "__main__":
    sys.exit(main())
