"""The lanes as separate processes: started, watched, asked for their figures, stopped in order."""

import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import orjson
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import LOOPBACK, free_port
from deploy.local.server_process import ServerFailedError, ServerProcess

_PAGE_SECONDS = 2.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.2
_LOG_TAIL_BYTES = 4_000

_WRITES = "knowledge"
"""How the names of the lanes begin that ask a language model."""


@dataclass(frozen=True, slots=True)
class CallCost:
    """Calls of a language model and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Self) -> Self:
        """Return both together."""
        return type(self)(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What a lane's metrics page says: counts since its start, and its lag now.

    `outcomes` counts records by how they ended, `refused` dead letters by reason, `preferences`
    what the gate of users' knowledge decided, by reason. `costs` are language model calls by why
    they were made, `accepted` counts requests whose answer became knowledge, `rejected` those
    without a usable one, by what was wrong with it; `emitted` counts records of that outcome by
    reason.
    """

    lane: str
    outcomes: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    calls: int = 0
    saved: Mapping[str, int] = field(default_factory=dict)
    preferences: Mapping[str, int] = field(default_factory=dict)
    lag: int = 0
    costs: Mapping[str, CallCost] = field(default_factory=dict)
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    emitted: Mapping[str, int] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """Records that ended, in whatever way."""
        return sum(self.outcomes.values())


class LaneProcess:
    """One lane: its process, its log and its pages. Starts on construction.

    Args:
        name: of the lane.
        settings: FRESHET_ variables; those of this process's environment do not count.
        log_file: holds what it prints.
        detached: the lane outlives this process.
    """

    def __init__(
        self, name: str, settings: Mapping[str, str], *, log_file: Path, detached: bool = False
    ) -> None:
        self.name = name
        self.port = free_port()
        self.log_file = log_file
        inherited = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith("FRESHET_")
        }
        self._process = ServerProcess(
            [sys.executable, "-m", "streams.cli.main", "lane", name],
            log_file=log_file,
            environment={**inherited, **settings, "FRESHET_WEB__PORT": str(self.port)},
            detached=detached,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process.running

    def check(self) -> None:
        """Raise ServerFailedError with the end of its log when the process is gone."""
        if not self.running:
            tail = self.log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
            raise ServerFailedError(
                f"lane {self.name} ended by itself; end of {self.log_file}:\n{tail}"
            )

    def waits_for(self) -> str:
        """Return what the lane still waits for, nothing when it is ready."""
        answer = self._get("/readyz")
        if answer is None:
            return "starting"
        status, body = answer
        if status == http.client.OK:
            return ""
        try:
            reasons = orjson.loads(body)["reasons"]
        except (ValueError, KeyError):
            return "starting"
        return ", ".join(f"{name} {text}" for name, text in reasons.items()) or "starting"

    def figures(self) -> LaneFigures | None:
        """Return what its metrics page says, None when it does not answer."""
        answer = self._get("/metrics")
        return None if answer is None else read_figures(self.name, answer[1].decode())

    def oldest_seconds(self) -> float:
        """Return the age of its oldest open record, 0 when its metrics page does not answer."""
        answer = self._get("/metrics")
        lines = [] if answer is None else answer[1].decode().splitlines()
        ages = [line for line in lines if line.startswith("freshet_oldest_open_record_seconds{")]
        return max((float(line.rpartition(" ")[2]) for line in ages), default=0.0)

    def stop(self) -> None:
        """End the lane in order (SIGTERM: it drains)."""
        if self.running:
            self._process.terminate(timeout_seconds=_STOP_SECONDS)

    def _get(self, path: str) -> tuple[int, bytes] | None:
        # Not urllib: a proxy for the network at large would be asked for pages of this machine.
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_PAGE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def read_figures(lane: str, page: str) -> LaneFigures:
    """Return the figures on a metrics page; raises ValueError when it is not one."""
    outcomes: dict[str, int] = {}
    refused: dict[str, int] = {}
    saved: dict[str, int] = {}
    preferences: dict[str, int] = {}
    rejected: dict[str, int] = {}
    costs: dict[str, CallCost] = {}
    emitted: dict[str, int] = {}
    lag = 0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            value = round(sample.value)
            match sample.name:
                case "freshet_records_total":
                    outcome = sample.labels["outcome"]
                    outcomes[outcome] = outcomes.get(outcome, 0) + value
                    if outcome == "dead_lettered":
                        refused[sample.labels["reason"]] = value
                    if outcome == "emitted":
                        emitted[sample.labels["reason"]] = value
                case "freshet_writer_calls_total":
                    _add(costs, sample.labels["reason"], CallCost(calls=value))
                case "freshet_writer_tokens_total":
                    of_prompts = sample.labels["kind"] == "prompt"
                    tokens = (value, 0) if of_prompts else (0, value)
                    _add(costs, sample.labels["reason"], CallCost(0, *tokens))
                case "freshet_writer_rejected_total":
                    rejected[sample.labels["rejection"]] = value
                case "freshet_writer_calls_saved_total":
                    saved[sample.labels["why"]] = value
                case "freshet_preference_decisions_total":
                    preferences[sample.labels["why"]] = value
                case "freshet_lag_records":
                    lag += value
    calls = sum(cost.calls for cost in costs.values())
    # What was only stamped anew, or put off, has a reason.
    accepted = emitted.get("", 0) if lane.startswith(_WRITES) else 0
    return LaneFigures(
        lane, outcomes, refused, calls, saved, preferences, lag, costs, accepted, rejected, emitted
    )


def _add(costs: dict[str, CallCost], reason: str, cost: CallCost) -> None:
    costs[reason] = costs.get(reason, CallCost()).plus(cost)


def wait_until_ready(
    lanes: Mapping[str, LaneProcess],
    *,
    timeout_seconds: float,
    on_wait: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> None:
    """Return once all lanes are ready.

    Raises ServerFailedError when one ends by itself or is not ready in time; it says which.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        waiting: dict[str, str] = {}
        for name, lane in lanes.items():
            lane.check()
            reason = lane.waits_for()
            if reason:
                waiting[name] = reason
        if not waiting:
            return
        on_wait(waiting)
        if time.monotonic() > deadline:
            facts = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
            raise ServerFailedError(f"not ready after {timeout_seconds:g} s: {facts}")
        time.sleep(_POLL_SECONDS)
