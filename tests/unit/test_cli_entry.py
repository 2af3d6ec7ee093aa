"""The entry point: usage, exit codes, one-line errors, and what an import costs."""

import os
import subprocess
import sys

import pytest

from tests.cli_runner import run_freshet

COMMANDS = [
    ["produce"],
    ["lane"],
    ["up"],
    ["get"],
    ["explain"],
    ["lag"],
    ["refresh"],
    ["sweep"],
    ["forget"],
    ["audit"],
    ["rebuild"],
    ["doctor"],
    ["topics", "apply"],
    ["topics", "check"],
    ["dead-letters", "list"],
    ["dead-letters", "replay"],
    ["spaces", "list"],
    ["spaces", "fit"],
    ["spaces", "create"],
    ["spaces", "activate"],
    ["spaces", "retire"],
    ["groups", "build"],
    ["groups", "list"],
    ["groups", "show"],
    ["groups", "activate"],
    ["groups", "request"],
    ["groups", "cut"],
    ["evaluate", "cold-start"],
    ["evaluate", "staleness"],
    ["evaluate", "split"],
    ["llm", "serve"],
    ["llm", "check"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(capsys, words) -> None:
    ran = run_freshet(capsys, *words, "--help")

    assert ran.code == 0
    assert f"Example: freshet {' '.join(words)}" in " ".join(ran.out.split())


def test_the_command_line_imports_no_heavy_library_until_a_command_runs() -> None:
    heavy = "torch faust aiokafka kafka redis numpy pydantic sentence_transformers httpx"
    probe = (
        f"import sys, streams.cli.main\nprint(sorted(set({heavy.split()!r}) & set(sys.modules)))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", probe], check=False, capture_output=True, text=True
    )

    assert loaded.stdout.strip() == "[]", loaded.stderr


@pytest.mark.parametrize(("wanted", "threads"), [(None, 1), ("2", 2)])
def test_a_lane_multiplies_on_one_thread_unless_told_otherwise(wanted, threads) -> None:
    probe = """
import sys, types
def run_lane(name, settings):
    import numpy
    from threadpoolctl import threadpool_info
    print([pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]])
    sys.stdout.flush()
    return 0
sys.modules["streams.run_lane"] = types.SimpleNamespace(run_lane=run_lane)
from streams.cli.main import main
main(["lane", "items"])
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": wanted or ""}
    if wanted is None:
        del environment["OPENBLAS_NUM_THREADS"]

    ran = subprocess.run(
        [sys.executable, "-c", probe], check=False, capture_output=True, text=True, env=environment
    )

    assert ran.stdout.strip() == f"[{threads}]", ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["lane"],
        ["lane", "items", "encode", "knowledge"],
        ["lane", "nosuch"],
        ["lane", "resume", "nosuch"],
        ["up", "--lane", "nosuch"],
        ["nosuch"],
        ["get", "42"],
        ["explain", "film:42"],
        ["forget", "item:{42}"],
        ["audit", "--share", "2"],
        ["dead-letters", "list", "items", "--reason", "nosuch"],
        ["dead-letters", "list", "items", "--since", "yesterday"],
        ["produce", "/no/such/file.jsonl"],
        ["refresh", "--where", "price>3"],
        ["refresh"],
        ["llm", "serve", "--device", "tpu"],
        ["llm", "serve", "--port", "0"],
        ["llm", "check", "--catalog", "/no/such/file.jsonl"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_code_2_and_a_message_on_stderr(capsys, words) -> None:
    ran = run_freshet(capsys, *words)

    assert ran.code == 2
    assert ran.err.strip()
    assert "Traceback" not in ran.err


def test_a_wrong_setting_is_one_line_that_names_it(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FRESHET_LANE__MAX_BATCH", "many")

    ran = run_freshet(capsys, "lag")

    assert ran.code == 2
    assert ran.err.startswith("freshet: FRESHET_LANE__MAX_BATCH: ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["lag"], ["topics", "check"], ["dead-letters", "list", "items"]], ids=" ".join
)
def test_an_unreachable_broker_is_one_line_with_code_1(capsys, monkeypatch, words) -> None:
    monkeypatch.setattr("streams.kafka_clients.BOOTSTRAP_SECONDS", 1)
    monkeypatch.setenv("FRESHET_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")

    ran = run_freshet(capsys, *words)

    assert ran.code == 1
    assert ran.err.startswith("freshet: kafka: ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("words", [["get", "item:42"], ["explain", "item:42"]], ids=" ".join)
def test_an_unreachable_redis_is_one_line_with_code_1(capsys, monkeypatch, words) -> None:
    monkeypatch.setenv("FRESHET_REDIS__URL", "redis://127.0.0.1:1/0")

    ran = run_freshet(capsys, *words)

    assert ran.code == 1
    assert ran.err.startswith("freshet: redis: ")
    assert len(ran.err.splitlines()) == 1


def test_the_version_is_shown_without_a_command(capsys) -> None:
    ran = run_freshet(capsys, "--version")

    assert ran.code == 0
    assert len(ran.out.split()) in (1, 2)
