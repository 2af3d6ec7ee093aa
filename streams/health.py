"""The pages of a lane: /livez, /readyz, /metrics. Served by a thread, so a stuck loop shows.

Liveness: the event loop beat within the last seconds (or the lane is still starting). Readiness:
records can flow, and the body says why not.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from streams.vitals import Vitals

BEAT_SECONDS = 15.0
CLIENT_SECONDS = 5.0
"""How long a client may take to say what it wants."""


class Health:
    """What the pages say; written by the lane's process, read by the server's threads."""

    def __init__(
        self, lane: str, vitals: Vitals, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._lane = lane
        self._now = now
        self.vitals = vitals
        self.starting: dict[str, str] = {"lane": "starting"}
        """What the start still waits for: dependency -> what it said."""

    def live(self) -> tuple[bool, dict[str, object]]:
        """Return whether the process should be left alone."""
        stuck = self._is_stuck()
        return not stuck, {"lane": self._lane, "live": not stuck}

    def _is_stuck(self) -> bool:
        beat_at = self.vitals.beat_at
        return bool(beat_at) and self._now() - beat_at > BEAT_SECONDS

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Return whether records can flow, and what keeps them from it."""
        vitals = self.vitals
        reasons: dict[str, str] = {**self.starting, **vitals.holds, **vitals.circuits}
        if self._is_stuck():
            reasons["loop"] = f"no beat for {BEAT_SECONDS:g} s"
        if not reasons and not vitals.flowing:
            reasons["consumer"] = "rebalancing"
        return not reasons, {
            "lane": self._lane,
            "ready": not reasons,
            "reasons": reasons,
            "waits": vitals.waits,
            "assigned": vitals.assigned,
            "open_records": vitals.open_records,
        }


class HealthServer:
    """A small HTTP server on its own threads; `port` is the real one after `start`."""

    def __init__(
        self, health: Health, metrics: Callable[[], tuple[str, bytes]], *, host: str, port: int
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(health, metrics))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve until the process ends."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _handler(
    health: Health, metrics: Callable[[], tuple[str, bytes]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/livez":
                    self._answer_json(*health.live())
                case "/readyz":
                    self._answer_json(*health.ready())
                case "/metrics":
                    self._answer(200, *metrics())
                case _:
                    self._answer(404, "text/plain", b"/livez /readyz /metrics\n")

        def _answer_json(self, ok: bool, body: dict[str, object]) -> None:  # noqa: FBT001
            self._answer(200 if ok else 503, "application/json", json.dumps(body).encode() + b"\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Probes every few seconds are not worth a line each."""

    return Handler
