"""The server as a child process: a small HTTP server stands for vLLM's Python."""

import asyncio
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from deploy.local.ports import free_port
from schemas.errors import ConfigurationError, Transient
from workers.knowledge.vllm_launch import Device, VllmLaunch
from workers.knowledge.vllm_process import VllmProcess, require_free_port, stored_api_key

ROOT = Path(__file__).parents[2]


def launch_of(project: Path, script: str, *, model: str = "a-model") -> VllmLaunch:
    """A launch whose Python is a shell script; $PORT is the port that it is told to serve on."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    port = free_port()
    python.write_text(f"#!/bin/sh\nPORT={port}\n{script}\n")
    python.chmod(0o755)
    return VllmLaunch(project, project, model, Device.CPU, port=port)


def serving(project: Path, *, model: str = "a-model") -> VllmLaunch:
    fake = f"cd {ROOT}; PYTHONSAFEPATH= exec {sys.executable} -m tests.fakes.vllm_server $PORT"
    return launch_of(project, fake, model=model)


def process_of(launch: VllmLaunch, tmp_path: Path, **arguments) -> VllmProcess:
    return VllmProcess(
        launch,
        api_key="key",
        log_file=tmp_path / "run" / "server.log",
        inherited=os.environ,
        **arguments,
    )


def lives(pid_file: Path) -> bool:
    stat_file = Path("/proc") / pid_file.read_text().strip() / "stat"
    try:
        state = stat_file.read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # A killed grandchild stays a zombie until the machine's first process takes notice.
    return state != "Z"


async def test_a_server_is_waited_for_and_stopped(tmp_path):
    launch = serving(tmp_path / "project")
    waits: list[float] = []

    async with process_of(launch, tmp_path) as process:
        await process.await_healthy(timeout_seconds=60, on_wait=waits.append)
        with pytest.raises(ConfigurationError, match="Address already in use"):
            require_free_port("127.0.0.1", launch.port)

    require_free_port("127.0.0.1", launch.port)
    assert waits == sorted(waits)


async def test_a_server_that_ends_while_starting_is_reported_with_the_end_of_its_log(tmp_path):
    launch = launch_of(tmp_path / "project", "echo no such device >&2; exit 3")

    async with process_of(launch, tmp_path) as process:
        with pytest.raises(Transient, match=r"(?s)exit code 3.*no such device"):
            await process.await_healthy(timeout_seconds=30)


async def test_a_server_that_never_answers_is_given_up_and_killed_with_its_children(
    tmp_path, wait_until
):
    # Deaf to SIGTERM, and so is its child.
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/child; while :; do sleep 1; done"
    launch = launch_of(tmp_path / "project", script)

    async with process_of(launch, tmp_path, stop_seconds=0.2) as process:
        with pytest.raises(Transient, match="not ready after"):
            await process.await_healthy(timeout_seconds=0.5)

    await wait_until(lambda: not lives(tmp_path / "child"), 10)


async def test_a_server_of_another_model_is_not_taken_for_ours(tmp_path):
    launch = serving(tmp_path / "project", model="the-model-we-started")

    async with process_of(launch, tmp_path) as process:
        with pytest.raises(Transient, match="serves another model"):
            await process.await_healthy(timeout_seconds=60)


async def test_a_taken_port_is_a_configuration_error_before_anything_is_started(tmp_path):
    launch = launch_of(tmp_path / "project", f"touch {tmp_path}/started")

    with (
        socket.create_server(("127.0.0.1", launch.port)),
        pytest.raises(ConfigurationError, match=f"--port: 127.0.0.1:{launch.port}"),
    ):
        async with process_of(launch, tmp_path):
            pass

    assert not (tmp_path / "started").exists()


async def test_a_server_does_not_outlive_a_killed_parent(tmp_path, wait_until):
    launch = launch_of(tmp_path / "project", f"echo $$ > {tmp_path}/server; exec sleep 60")
    parent = f"""
import asyncio, os
from pathlib import Path
from tests.component.test_vllm_process import process_of
from workers.knowledge.vllm_launch import Device, VllmLaunch
async def main():
    project = Path({str(launch.project)!r})
    launch = VllmLaunch(project, project, "a-model", Device.CPU, port={launch.port})
    async with process_of(launch, Path({str(tmp_path)!r})):
        await asyncio.sleep(60)
asyncio.run(main())
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, cwd=ROOT)
    server = tmp_path / "server"
    await wait_until(lambda: server.exists() and server.read_text(), 30)

    killed.kill()
    await killed.wait()

    await wait_until(lambda: not lives(server), 10)


async def test_the_command_stops_its_server_on_sigterm_and_says_what_lanes_need(tmp_path):
    launch = serving(tmp_path / "project", model="a-model")
    (tmp_path / "project" / ".venv" / ".installed").write_text("cpu 1 2\n")
    model = tmp_path / "models" / "a-model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").touch()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streams.cli.main", "llm", "serve"),
        *("--model", "a-model", "--port", str(launch.port)),
        cwd=ROOT,
        env=os.environ
        | {
            "FRESHET_LLM__PROJECT": str(tmp_path / "project"),
            "FRESHET_LLM__MODELS_DIR": str(tmp_path / "models"),
            "FRESHET_LLM__RUN_DIR": str(tmp_path / "run"),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert command.stdout is not None
    async with asyncio.timeout(60):
        told = [(await command.stdout.readline()).decode()]
        while not told[-1].startswith("export FRESHET_KNOWLEDGE__VLLM_API_KEY="):
            assert told[-1], "it ended before it told the last setting"
            told.append((await command.stdout.readline()).decode())
        command.terminate()
        code = await command.wait()

    require_free_port("127.0.0.1", launch.port)
    key_file = tmp_path / "run" / "api-key"
    assert code == 0
    assert f"export FRESHET_KNOWLEDGE__VLLM_URL=http://127.0.0.1:{launch.port}\n" in told
    assert told[-1] == f'export FRESHET_KNOWLEDGE__VLLM_API_KEY="$(cat {key_file})"\n'
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_a_stored_key_stays_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "run" / "api-key"

    first = stored_api_key(path)
    path.chmod(0o644)
    again = stored_api_key(path)

    assert len(first) >= 40
    assert again == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_key_file_does_not_open_the_server_to_everyone(tmp_path):
    path = tmp_path / "api-key"
    path.touch()

    with pytest.raises(ConfigurationError, match="is empty"):
        stored_api_key(path)
