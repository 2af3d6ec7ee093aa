"""The demo as a newcomer runs it, with few films: it ends by itself, and its figures add up."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.server_process import command_line
from tests.stack import wait_until_blocking

FILMS = 24
REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(360)


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


def run_demo(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--root", str(root), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def children_of(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    direct = {int(child) for task in tasks for child in task.read_text().split()}
    return direct | {pid for child in direct for pid in children_of(child)}


def is_running(pid: int) -> bool:
    return bool(command_line(pid))


@dataclass(frozen=True)
class Finished:
    """A demo that ended by itself and was kept, and what became of it then."""

    result: dict
    progress: str
    kept: dict[int, bool]
    second_start: subprocess.CompletedProcess
    settings: str
    stopped: dict[int, bool]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    root = tmp_path_factory.mktemp("demo") / "root"
    demo = start_demo(root, "--json", "--keep", "--films", str(FILMS), "--speed", "2000000")
    try:
        output, _ = demo.communicate(timeout=300)
        progress = (root / "progress.txt").read_text()
        assert demo.returncode == 0, progress[-4_000:]
        lanes = json.loads((root / "lanes.json").read_text()).values()
        kept = {pid: is_running(pid) for pid in lanes}
        settings = (root / "settings.sh").read_text()
        second_start = run_demo(root)
    finally:
        demo.kill()
        run_demo(root, "--stop")
    return Finished(
        result=json.loads(output.splitlines()[-1]),
        progress=progress,
        kept=kept,
        second_start=second_start,
        settings=settings,
        stopped={pid: not is_running(pid) for pid in kept},
    )


def test_every_record_is_accounted_for(finished):
    found = finished.result

    assert found["items_live"] == {"content": 0, "collective": 0, "individual": FILMS - 1}
    assert set(found["lag"]) == {"items", "knowledge", "knowledge-backlog", "encode", "behaviour"}
    assert set(found["lag"].values()) == {0}
    assert sum(found["dead_letters"].values()) == 4 + 3
    assert found["events"] > 5_000


def test_news_reaches_rankers_and_what_is_no_news_costs_no_call(finished):
    found = finished.result

    assert 0 < found["freshness_ms"]["content"]["p50"] < 10_000
    assert found["freshness_ms"]["individual"]["p50"] >= found["freshness_ms"]["content"]["p50"]
    # One call a film, and one for each of its few corrections: none for hundreds of vote counts.
    about_films = found["llm"]["calls"] - found["users"]["knowledge"]["asked"]
    assert FILMS <= about_films < 2 * FILMS
    assert found["llm"]["saved_fingerprint"] > 50
    assert found["llm"]["saved_coalesced"] > 0


def test_live_vectors_are_there_for_every_rating(finished):
    found = finished.result
    regimes = found["cold_start"]

    assert list(regimes) == ["nightly", "content", "live"]
    assert len({figures["n"] for figures in regimes.values()}) == 1
    assert regimes["live"]["n"] > 100
    assert regimes["live"]["missed"] < 0.05
    assert regimes["content"]["missed"] == 0.0


def test_new_users_become_rankable_and_their_next_films_are_ranked(finished):
    users = finished.result["users"]

    assert users["new"] > 100
    assert 0 < users["rankable_ms"]["p50"] < 10_000
    assert list(users["hr100_after"]) == ["1", "2", "5", "10"]
    assert users["hr100_after"]["1"]["n"] > users["hr100_after"]["5"]["n"] > 0
    # There are not even a hundred films.
    assert users["hr100_after"]["1"]["hr100"] > 0.5
    assert 0 <= users["stale"] <= users["read"]


def test_a_language_model_is_asked_about_few_users(finished):
    knowledge = finished.result["users"]["knowledge"]

    assert 0 < knowledge["asked"] < 250
    assert knowledge["reasons"]["global_budget"] > knowledge["asked"]


def test_progress_and_hints_go_to_stderr(finished):
    assert "Replaying the summer" in finished.progress
    assert "freshet explain item:" in finished.progress
    assert "freshet explain user:" in finished.progress
    assert "Traceback" not in finished.progress


def test_a_kept_demo_goes_on_refuses_company_and_is_stopped_by_a_command(finished):
    assert len(finished.kept) == 5
    assert all(finished.kept.values())
    assert "export FRESHET_KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:" in finished.settings
    assert finished.second_start.returncode == 1
    assert "still running" in finished.second_start.stderr
    assert all(finished.stopped.values())


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
    assert len(started) >= 5
    wait_until_blocking(lambda: not any(map(is_running, started)), timeout=10)
