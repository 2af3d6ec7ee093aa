"""The fake vLLM server with a pace: so many answers a second, so many places, others wait.

`python -m tests.fakes.paced_vllm_server PORT ANSWERS_PER_SECOND PLACES`; POST /pace changes both.
Whoever waits is served by priority, then in order, as with `--scheduling-policy priority`. Its
metrics page tells how many run and wait, so a backlog can look at it.
"""

import asyncio
import heapq
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from deploy.local.ports import free_port
from tests.fakes.vllm_server import Behaviour, FakeVllmServer

_REPOSITORY = Path(__file__).parents[2]
_TEXTS_OF_AN_ANSWER = 6
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05


class PacedVllmServer(FakeVllmServer):
    """Answers take `places / answers_per_second` seconds each, `places` at a time.

    That is for an answer of six texts, as about one item; one of more takes longer by as much.
    """

    def __init__(self, *, port: int, answers_per_second: float, places: int) -> None:
        super().__init__(port=port)
        self.answers_any_name = True
        self.answers_per_second = answers_per_second
        self.places = places
        self._queue: list[tuple[int, int, asyncio.Event]] = []
        self._sequence = 0
        self._runner.app.router.add_post("/pace", self._change_pace)

    async def _behave(
        self, behaviour: Behaviour, body: dict, request: web.Request
    ) -> web.StreamResponse:
        await self._enter(int(body.get("priority", 0)))
        try:
            texts = body["response_format"]["json_schema"]["schema"]["properties"]
            seconds = self.places / self.answers_per_second
            await asyncio.sleep(seconds * max(1, len(texts) / _TEXTS_OF_AN_ANSWER))
            return await super()._behave(behaviour, body, request)
        finally:
            self.running -= 1
            self._let_in()

    async def _enter(self, priority: int) -> None:
        self._sequence += 1
        turn = asyncio.Event()
        entry = (priority, self._sequence, turn)
        heapq.heappush(self._queue, entry)
        self._let_in()
        try:
            await turn.wait()
        except asyncio.CancelledError:
            if turn.is_set():
                self.running -= 1
                self._let_in()
            else:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            raise
        finally:
            self.waiting = len(self._queue)

    def _let_in(self) -> None:
        while self._queue and self.running < self.places:
            _, _, turn = heapq.heappop(self._queue)
            self.running += 1
            turn.set()
        self.waiting = len(self._queue)

    async def _change_pace(self, request: web.Request) -> web.Response:
        wish = await request.json()
        self.answers_per_second = wish.get("answers_per_second", self.answers_per_second)
        self.places = wish.get("places", self.places)
        self._let_in()
        return web.json_response({"requests": len(self.requests), "running": self.running})


class PacedServerProcess:
    """Such a server as a process of its own; it ends with the block."""

    def __init__(self, *, answers_per_second: float, places: int) -> None:
        self._port = free_port()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fakes.paced_vllm_server"),
                *(str(self._port), str(answers_per_second), str(places)),
            ],
            cwd=_REPOSITORY,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.calls()
            except OSError:
                assert self._process.poll() is None, "the paced vLLM server ended by itself"
                assert time.monotonic() < deadline, "the paced vLLM server does not answer"
                time.sleep(_POLL_SECONDS)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(10)

    def calls(self) -> int:
        """Return how many calls it got since it started."""
        return self._pace({})["requests"]

    def running(self) -> int:
        """Return how many calls it answers now, whoever sent them."""
        return self._pace({})["running"]

    def answer(self, answers_per_second: float, *, places: int) -> None:
        """Answer at another pace from now on."""
        self._pace({"answers_per_second": answers_per_second, "places": places})

    def _pace(self, wish: dict[str, float]) -> dict[str, int]:
        request = urllib.request.Request(f"{self.url}/pace", json.dumps(wish).encode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


async def _serve(port: int, answers_per_second: float, places: int) -> None:
    async with PacedVllmServer(port=port, answers_per_second=answers_per_second, places=places):
        await asyncio.Event().wait()  # until whoever started this process ends it


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
