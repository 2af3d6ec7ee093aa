"""The middleware in front of vLLM, driven without a server."""

import pytest

from deploy.vllm.allowed_paths import GUARDED, OPEN, AllowedPaths


class Recorder:
    """An application behind the middleware, and what was sent to the caller."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.sent: list[dict] = []

    async def app(self, scope, receive, send) -> None:
        self.reached.append(scope.get("path", scope["type"]))

    async def receive(self) -> dict:
        return {}

    async def send(self, message) -> None:
        self.sent.append(dict(message))


async def ask(scope: dict) -> Recorder:
    recorder = Recorder()
    await AllowedPaths(recorder.app)(scope, recorder.receive, recorder.send)
    return recorder


@pytest.mark.parametrize("path", sorted(OPEN | GUARDED))
async def test_what_freshet_uses_is_passed_on(path):
    recorder = await ask({"type": "http", "path": path})

    assert recorder.reached == [path]
    assert recorder.sent == []


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/tokenize", "/v1/load_lora_adapter", "/v1/responses", "/v1/models/", "/"],
)
async def test_anything_else_does_not_exist(path):
    recorder = await ask({"type": "http", "path": path})

    assert recorder.reached == []
    assert recorder.sent[0]["status"] == 404


async def test_there_are_no_web_sockets():
    recorder = await ask({"type": "websocket", "path": "/v1/realtime"})

    assert recorder.reached == []
    assert recorder.sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_server_still_hears_of_its_start_and_end():
    assert (await ask({"type": "lifespan"})).reached == ["lifespan"]
