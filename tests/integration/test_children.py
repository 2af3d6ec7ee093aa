"""`freshet up`: children side by side, stopped together."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.stack import wait_until_blocking

REPOSITORY = Path(__file__).parents[2]

QUIET = "import signal, time; print('up', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(60)"
)
POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit('bye')); "
    "print('up', flush=True); time.sleep(60)"
)
DYING = "import time; print('up', flush=True); time.sleep(0.5); raise SystemExit(3)"


@pytest.fixture
def start(tmp_path):
    """A function that runs children under a parent of its own; returns the parent."""
    parents: list[subprocess.Popen[str]] = []

    def started(**children: str) -> subprocess.Popen[str]:
        script = tmp_path / "parent.py"
        script.write_text(
            textwrap.dedent(f"""
            import asyncio, sys
            from streams.cli import children
            children._KILL_SECONDS = 0.5
            made = [
                children.Child(name, (sys.executable, "-c", code), {{"NAME": name}})
                for name, code in {children!r}.items()
            ]
            print("ended", asyncio.run(children.run_children(made, 0.5)), flush=True)
            """)
        )
        with (tmp_path / "out").open("w") as out:
            parent = subprocess.Popen(
                [sys.executable, str(script)],
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        parents.append(parent)
        return parent

    yield started
    for parent in parents:
        parent.kill()
        parent.wait()


def _lines(tmp_path) -> list[str]:
    return (tmp_path / "out").read_text().splitlines()


def _wait_for(tmp_path, *lines: str) -> None:
    wait_until_blocking(lambda: set(lines) <= set(_lines(tmp_path)), timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_children_cleanly(start, tmp_path, number) -> None:
    parent = start(a=QUIET, longer=POLITE)
    _wait_for(tmp_path, "a      | up", "longer | up")

    parent.send_signal(number)

    assert parent.wait(10) == 0
    assert "ended None" in _lines(tmp_path)
    assert "longer | bye" in _lines(tmp_path)


def test_a_child_that_ends_by_itself_stops_the_others_and_is_named(start, tmp_path) -> None:
    parent = start(a=POLITE, b=DYING)

    assert parent.wait(20) == 0
    assert "ended Died(name='b', exit_code=3)" in _lines(tmp_path)
    assert "a | bye" in _lines(tmp_path)


def test_a_child_that_ignores_the_signal_is_killed_after_its_grace(start, tmp_path) -> None:
    parent = start(a=STUBBORN)
    _wait_for(tmp_path, "a | up")

    parent.terminate()

    assert parent.wait(10) == 0
    assert "ended None" in _lines(tmp_path)


def test_output_of_any_kind_and_length_is_passed_on(start, tmp_path) -> None:
    noisy = (
        "import os, sys; os.write(1, b'\\xff bytes\\n'); os.write(2, b'to stderr\\n'); "
        "print('x' * 3_000_000); print(os.environ['NAME'], end='')"
    )

    parent = start(a=noisy)

    assert parent.wait(20) == 0
    lines = _lines(tmp_path)
    assert "a | \ufffd bytes" in lines
    assert "a | to stderr" in lines
    assert sum(line.count("x") for line in lines if line.startswith("a | x")) == 3_000_000
    assert "a | a" in lines
