"""What the doctor looks at where text becomes knowledge and vectors: the writer and the encoder."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigurationError
from streams.doctor.finding import Finding
from streams.llm_server import api_key_file, known_api_key
from streams.settings import Settings

_ANSWER_SECONDS = 10.0


async def look_at_writer(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the configured writer answers, with the declared model."""
    knowledge = settings.knowledge
    if knowledge.writer == "recorded":
        async for finding in _recorded(knowledge.recorded_file):
            yield finding
        return
    if knowledge.writer != "vllm":
        yield Finding(True, "writer", f"{knowledge.writer}: not known here, not looked at")
        return
    import httpx

    url = knowledge.vllm_url.rstrip("/").removesuffix("/v1")
    given = knowledge.vllm_api_key.get_secret_value()
    stored = "" if given else known_api_key(settings)
    with _http_errors(url):
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            answer = await client.get(f"{url}/v1/models", headers=_authorization(given))
            # Only a server that asks for a key is shown the stored one.
            needs_stored = bool(stored) and answer.status_code == httpx.codes.UNAUTHORIZED
            if needs_stored:
                answer = await client.get(f"{url}/v1/models", headers=_authorization(stored))
            answer.raise_for_status()
            served = sorted(str(model["id"]) for model in answer.json()["data"])
    known = knowledge.model in served
    yield Finding(
        known,
        "writer",
        f"vLLM at {url} serves {', '.join(served)}; the settings declare {knowledge.model}",
        "" if known else "set FRESHET_KNOWLEDGE__MODEL, or start the server with that model",
    )
    if needs_stored:
        file = api_key_file(settings.llm)
        yield Finding(
            False,
            "writer",
            f"it takes the key in {file}, but lanes with these settings have none",
            f'export FRESHET_KNOWLEDGE__VLLM_API_KEY="$(cat {file})"',
        )


def _authorization(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _recorded(file: Path | None) -> AsyncIterator[Finding]:
    there = file is not None and await asyncio.to_thread(file.is_file)
    detail = "no file of recorded answers is set"
    if file is not None:
        detail = f"recorded answers: {file}" + ("" if there else " is missing")
    yield Finding(
        there,
        "writer",
        detail,
        "" if there else "set FRESHET_KNOWLEDGE__RECORDED_FILE, or FRESHET_KNOWLEDGE__WRITER=vllm",
    )


@contextmanager
def _http_errors(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        raise ConfigurationError("vllm", f"{url}: {error or type(error).__name__}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("vllm", f"{url} answers, but not as vLLM: {error!r}") from error


async def look_at_encoder(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the encoder reproduces the golden vectors; loads the model."""
    encode = settings.encode

    def probe() -> str:
        from workers.encoding.load_representer import load_representer

        representer = load_representer(
            encode.spaces_dir, encode.choice, refuse_below=encode.refuse_parity_below
        )
        return representer.encoder_id

    encoder_id = await asyncio.to_thread(probe)
    yield Finding(True, "encoder", f"{encoder_id} gives the vectors that the raw space records")
