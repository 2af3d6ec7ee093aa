"""A real HTTP server on 127.0.0.1 that behaves like vLLM on a good day, or on a scripted bad one.

In process: `async with FakeVllmServer() as server`. As a process of its own, for tests that kill or
reprogram it: `python -m tests.fakes.vllm_server PORT [MODEL ...]`, then POST /script; see
vllm_server_process.
"""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.fakes.answers import factor_text

HANG_SECONDS = 30.0
PROMPT_TOKENS, COMPLETION_TOKENS, SHARED_TOKENS = 321, 123, 256


class Behaviour(StrEnum):
    ANSWER = "answer"
    HANG = "hang"  # accepts the request and says nothing
    SLOW_HEADERS = "slow_headers"  # one header byte at a time
    SLOW_BODY = "slow_body"  # headers at once, then a body that never ends
    DROP = "drop"  # closes the connection in the middle of the body
    ENDLESS = "endless"  # a body without bounds
    RATE_LIMITED = "rate_limited"  # 429, Retry-After in seconds
    RATE_LIMITED_UNTIL = "rate_limited_until"  # 429, Retry-After as a date long past
    SERVER_ERROR = "server_error"
    BAD_GATEWAY_PAGE = "bad_gateway_page"  # 200 with a proxy's page
    UNAUTHORIZED = "unauthorized"
    NO_SUCH_MODEL = "no_such_model"
    CONTEXT_TOO_LONG = "context_too_long"
    UNKNOWN_COMPLAINT = "unknown_complaint"  # 400 that repeats the prompt
    PRIORITY_REFUSED = "priority_refused"
    CUT_BY_LENGTH = "cut_by_length"  # finish_reason=length
    TRUNCATED_JSON = "truncated_json"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_SCHEMA = "wrong_schema"
    NO_CONTENT = "no_content"
    DECLINED = "declined"  # the refusal field of the API
    ABORTED = "aborted"  # finish_reason=abort: the engine went down


class FakeVllmServer:
    """`requests` are the bodies received; `script` is used up first, then `default` for ever.

    `models` are served, any other is unknown unless it `answers_any_name`; `answers_as` signs the
    answers with another name.
    `running` and `waiting` are what the metrics page says; with `has_metrics` off it is gone.
    """

    def __init__(self, *, port: int = 0, api_key: str = "") -> None:
        self.default = Behaviour.ANSWER
        self.script: deque[Behaviour] = deque()
        self.requests: list[dict] = []
        self.authorizations: list[str | None] = []
        self.models = ["a-model"]
        self.answers_any_name = False
        self.answers_as = ""
        self.running = 0
        self.waiting = 0
        self.has_metrics = True
        self.looks = 0
        self.disconnected = asyncio.Event()
        self._api_key = api_key
        self._port = port
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/script", self._reprogram)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def will(self, *behaviours: Behaviour) -> None:
        self.script.extend(behaviours)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _list_models(self, request: web.Request) -> web.Response:
        if not self._knows(request):
            return _error(401, "Unauthorized")
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _metrics(self, request: web.Request) -> web.Response:
        self.looks += 1
        if not self.has_metrics:
            return _error(404, "Not Found")
        calls = len(self.requests)
        counted = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "prompt_tokens_total": PROMPT_TOKENS * calls,
            "generation_tokens_total": COMPLETION_TOKENS * calls,
            "prefix_cache_queries_total": PROMPT_TOKENS * calls,
            # The part that all prompts share is computed once.
            "prefix_cache_hits_total": SHARED_TOKENS * max(0, calls - 1),
        }
        page = "".join(f'vllm:{name}{{engine="0"}} {count}\n' for name, count in counted.items())
        return web.Response(text=page)

    def _knows(self, request: web.Request) -> bool:
        self.authorizations.append(request.headers.get("Authorization"))
        return (
            not self._api_key or request.headers.get("Authorization") == f"Bearer {self._api_key}"
        )

    async def _reprogram(self, request: web.Request) -> web.Response:
        wish = await request.json()
        self.default = Behaviour(wish.get("default", self.default))
        self.script = deque(map(Behaviour, wish.get("script", [])))
        self.models = wish.get("models", self.models)
        self.waiting = wish.get("waiting", self.waiting)
        return web.json_response({"requests": len(self.requests)})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if not self._knows(request):
            return _error(401, "Unauthorized")
        body = await request.json()
        self.requests.append(body)
        if body["model"] not in self.models and not self.answers_any_name:
            return _error(404, f"The model `{body['model']}` does not exist.")
        behaviour = self.script.popleft() if self.script else self.default
        try:
            return await self._behave(behaviour, body, request)
        except asyncio.CancelledError:
            self.disconnected.set()
            raise

    async def _behave(
        self, behaviour: Behaviour, body: dict, request: web.Request
    ) -> web.StreamResponse:
        match behaviour:
            case Behaviour.HANG:
                await asyncio.sleep(HANG_SECONDS)
            case Behaviour.SLOW_HEADERS:
                await _drip(request, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" * 99)
            case Behaviour.SLOW_BODY | Behaviour.ENDLESS:
                await _pour(request, endless=behaviour is Behaviour.ENDLESS)
            case Behaviour.DROP:
                return await _drop(request)
        return _whole(behaviour, body | {"model": self.answers_as or body["model"]})


_ERRORS: dict[Behaviour, tuple[int, str, dict[str, str]]] = {
    Behaviour.RATE_LIMITED: (429, "Too many requests", {"Retry-After": "7"}),
    Behaviour.RATE_LIMITED_UNTIL: (
        429,
        "Too many requests",
        {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ),
    Behaviour.SERVER_ERROR: (500, "EngineCore encountered an issue", {}),
    Behaviour.UNAUTHORIZED: (401, "Unauthorized", {}),
    Behaviour.NO_SUCH_MODEL: (404, "The model does not exist.", {}),
    Behaviour.CONTEXT_TOO_LONG: (400, "This model's maximum context length is 2048 tokens.", {}),
    Behaviour.UNKNOWN_COMPLAINT: (400, "Cannot process: {prompt}", {}),
    Behaviour.PRIORITY_REFUSED: (400, "Got priority 5, but no priority scheduling.", {}),
}
_HALF_AN_ANSWER = '{"genre": "a film about'
_MESSAGES: dict[Behaviour, dict[str, str | None]] = {
    Behaviour.CUT_BY_LENGTH: {"content": _HALF_AN_ANSWER, "finish_reason": "length"},
    Behaviour.TRUNCATED_JSON: {"content": _HALF_AN_ANSWER},
    Behaviour.NOT_JSON: {"content": "Certainly! Here is the JSON object you asked for."},
    Behaviour.NOT_AN_OBJECT: {"content": '["genre"]'},
    Behaviour.WRONG_SCHEMA: {"content": '{"genre": ["drama"], "people": "a, b"}'},
    Behaviour.NO_CONTENT: {"content": None},
    Behaviour.DECLINED: {"content": None, "refusal": "I will not describe this."},
    Behaviour.ABORTED: {"content": "", "finish_reason": "abort"},
}


def _whole(behaviour: Behaviour, body: dict) -> web.Response:
    if behaviour in _ERRORS:
        status, message, headers = _ERRORS[behaviour]
        prompt = body["messages"][-1]["content"]
        return _error(status, message.format(prompt=prompt), headers)
    if behaviour is Behaviour.BAD_GATEWAY_PAGE:
        return web.Response(text="<html>upstream</html>", content_type="text/html")
    return _completion(body, **_MESSAGES.get(behaviour, {"content": _answer(body)}))


def _answer(body: dict) -> str:
    prompt = body["messages"][-1]["content"]
    subject = f"subject {blake2b(prompt.encode(), digest_size=4).hexdigest()}"
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return json.dumps({name: factor_text(name, subject) for name in names})


def _completion(
    body: dict,
    content: str | None,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
) -> web.Response:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS},
        }
    )


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _drip(request: web.Request, data: bytes) -> None:
    assert request.transport is not None
    for byte in data:
        request.transport.write(bytes([byte]))
        await asyncio.sleep(0.02)


async def _pour(request: web.Request, *, endless: bool) -> None:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * (65_536 if endless else 1))
        await asyncio.sleep(0 if endless else 0.02)


async def _drop(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _serve(port: int, models: Sequence[str]) -> None:
    server = FakeVllmServer(port=port)
    server.models = list(models) or server.models
    async with server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()  # until the test that started this process ends it


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2:]))
