"""What the doctor says of a vLLM server: its model, and whose key it takes."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from streams.doctor.finding import Finding
from streams.doctor.writer_looks import look_at_writer
from streams.settings import KnowledgeSettings, LlmSettings, Settings
from tests.fakes.vllm_server import FakeVllmServer

KEY = "the key of this machine"


async def look(
    server: FakeVllmServer, run_dir: Path, *, key: str = "", model: str = "a-model"
) -> Sequence[Finding]:
    settings = Settings(
        knowledge=KnowledgeSettings(
            writer="vllm", model=model, vllm_url=server.url, vllm_api_key=key
        ),
        llm=LlmSettings(run_dir=run_dir),
    )
    return [finding async for finding in look_at_writer(settings)]


def store_key(run_dir: Path, key: str) -> None:
    (run_dir / "api-key").write_text(key)


async def test_a_server_that_takes_the_given_key_is_right(tmp_path):
    async with FakeVllmServer(api_key=KEY) as server:
        store_key(tmp_path, "another key")
        (finding,) = await look(server, tmp_path, key=KEY)

    assert (finding.ok, finding.advice) == (True, "")
    assert "serves a-model" in finding.detail


async def test_the_stored_key_opens_the_server_and_that_lanes_lack_it_is_told(tmp_path):
    async with FakeVllmServer(api_key=KEY) as server:
        store_key(tmp_path, KEY)
        model, key = await look(server, tmp_path)

    assert model.ok
    assert "serves a-model" in model.detail
    assert not key.ok
    assert key.advice == f'export FRESHET_KNOWLEDGE__VLLM_API_KEY="$(cat {tmp_path / "api-key"})"'
    assert KEY not in str((model, key))


async def test_another_model_is_told_behind_the_stored_key_too(tmp_path):
    async with FakeVllmServer(api_key=KEY) as server:
        store_key(tmp_path, KEY)
        model, _ = await look(server, tmp_path, model="declared")

    assert not model.ok
    assert "FRESHET_KNOWLEDGE__MODEL" in model.advice


async def test_a_server_without_a_key_never_sees_the_stored_one(tmp_path):
    async with FakeVllmServer() as server:
        store_key(tmp_path, KEY)
        findings = await look(server, tmp_path)
        keys = server.authorizations

    assert [finding.ok for finding in findings] == [True]
    assert keys == [None]


@pytest.mark.parametrize("stored", [None, "of another machine"])
async def test_a_server_whose_key_is_not_known_here_is_an_error(tmp_path, stored):
    if stored is not None:
        store_key(tmp_path, stored)

    async with FakeVllmServer(api_key=KEY) as server:
        with pytest.raises(ConfigurationError, match="401"):
            await look(server, tmp_path)
