"""A real vLLM server with the bundled model, one a run; skipped where vLLM is not installed."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from deploy.local.ports import free_port
from schemas.errors import ConfigurationError
from streams.llm_server import Wish, plan_launch, sampling_of, writing_settings
from streams.settings import KnowledgeSettings, Settings
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_models import BUNDLED_MODEL
from workers.knowledge.vllm_process import VllmProcess

WRITING = writing_settings(KnowledgeSettings())
API_KEY = "a key of the tests"
START_SECONDS = 420.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmServer]:
    wish = Wish(model=BUNDLED_MODEL, port=free_port(), max_num_seqs=8)
    try:
        launch = plan_launch(Settings(), wish)
    except ConfigurationError as error:
        pytest.skip(str(error))
    log_file = tmp_path_factory.mktemp("vllm") / "server.log"
    process = VllmProcess(launch, api_key=API_KEY, log_file=log_file, inherited=os.environ)
    async with process:
        await process.await_healthy(timeout_seconds=START_SECONDS)
        yield VllmServer(
            launch.url,
            API_KEY,
            call_seconds=240.0,
            accepts_priority=True,
            # As lanes write with this model, but the same words every time.
            sampling=replace(sampling_of(WRITING), temperature=0.0),
        )
