"""The demo as a newcomer runs it, with few films: it ends by itself, and its figures add up."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import wait_until_blocking

FILMS = 24
REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(240)


def start_demo(root: Path, *arguments: str) -> subprocess.Popen:
    root.mkdir()
    with (root / "progress.txt").open("w") as progress:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.demo", "--root", str(root), *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=progress,
            text=True,
        )


def children_of(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    direct = {int(child) for task in tasks for child in task.read_text().split()}
    return direct | {pid for child in direct for pid in children_of(child)}


def is_running(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[subprocess.Popen, dict, str]:
    root = tmp_path_factory.mktemp("demo") / "root"
    demo = start_demo(root, "--json", "--films", str(FILMS), "--speed", "2000000")
    output, _ = demo.communicate(timeout=200)
    progress = (root / "progress.txt").read_text()
    assert demo.returncode == 0, progress[-4_000:]
    return demo, json.loads(output.splitlines()[-1]), progress


def test_every_record_is_accounted_for(finished):
    _, found, _ = finished

    assert found["items_live"] == {"content": 0, "collective": 0, "individual": FILMS - 1}
    assert found["lag"] == {"items": 0, "knowledge": 0, "knowledge-backlog": 0, "encode": 0}
    assert sum(found["dead_letters"].values()) == 4
    assert found["events"] > 100


def test_news_reaches_rankers_and_what_is_no_news_costs_no_call(finished):
    _, found, _ = finished

    assert 0 < found["freshness_ms"]["content"]["p50"] < 10_000
    assert found["freshness_ms"]["individual"]["p50"] >= found["freshness_ms"]["content"]["p50"]
    # One call a film, and one for each of its few corrections: none for hundreds of vote counts.
    assert FILMS <= found["llm"]["calls"] < 2 * FILMS
    assert found["llm"]["saved_fingerprint"] > 50
    assert found["llm"]["saved_coalesced"] > 0


def test_live_vectors_are_there_for_every_rating(finished):
    _, found, _ = finished
    regimes = found["cold_start"]

    assert list(regimes) == ["nightly", "content", "live"]
    assert len({figures["n"] for figures in regimes.values()}) == 1
    assert regimes["live"]["n"] > 100
    assert regimes["live"]["missed"] == 0.0
    assert regimes["content"]["missed"] == 0.0


def test_stdout_is_one_json_object_and_progress_goes_to_stderr(finished):
    _, _, progress = finished

    assert "Replaying the summer" in progress
    assert "Traceback" not in progress


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks /proc for child processes")
def test_ctrl_c_ends_everything_that_was_started(tmp_path):
    demo = start_demo(tmp_path / "root", "--films", str(FILMS))
    progress = tmp_path / "root" / "progress.txt"
    wait_until_blocking(lambda: "Starting the lanes" in progress.read_text(), timeout=120)
    started = children_of(demo.pid)

    os.kill(demo.pid, signal.SIGINT)
    output, _ = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert output == ""
    assert "Traceback" not in progress.read_text()
    assert len(started) >= 4
    wait_until_blocking(lambda: not any(map(is_running, started)), timeout=10)
