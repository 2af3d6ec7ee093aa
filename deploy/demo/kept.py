"""A demo that was left running (`--keep`): the files by which it is found, used and stopped."""

import json
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.server_process import command_line, terminate_pid
from deploy.local.stack import read_state, stop_detached

_STATE_FILE = "lanes.json"
_SETTINGS_FILE = "settings.sh"
_STOP_SECONDS = 20.0

MODEL = "llm"
"""The name of a language model's server among those of the lanes."""


def remember(root: Path, lanes: Mapping[str, int], settings: Mapping[str, str]) -> None:
    """Note the process ids of lanes (and a MODEL) by name, and the settings for a shell to read."""
    (root / _STATE_FILE).write_text(json.dumps(dict(lanes)))
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()]
    # A language model's key may be among them.
    (root / _SETTINGS_FILE).touch(mode=0o600)
    (root / _SETTINGS_FILE).write_text("".join(lines))


def is_running(root: Path) -> bool:
    """Return whether anything of a kept demo still runs."""
    state = read_state(root)
    servers = state is not None and (state.kafka_running or state.redis_running)
    return servers or any(_marker(name) in command_line(pid) for name, pid in _lanes(root).items())


def stop(root: Path) -> None:
    """End what a kept demo left running: the lanes first, then Kafka and Redis."""
    lanes = _lanes(root)
    # Side by side: each of them drains and leaves its group.
    with ThreadPoolExecutor(max(1, len(lanes))) as stopping:
        list(stopping.map(_stop_lane, lanes, lanes.values()))
    stop_detached(root)
    forget(root)


def forget(root: Path) -> None:
    """Remove the notes, once nothing runs any more."""
    (root / _STATE_FILE).unlink(missing_ok=True)
    (root / _SETTINGS_FILE).unlink(missing_ok=True)


def what_to_try(root: Path, item_id: str, title: str, user_id: str) -> str:
    """Return the hints that are printed at the end."""
    settings = _shown(root / _SETTINGS_FILE)
    return f"""Everything is left running. In another terminal, try:

  source {settings}
  source .venv/bin/activate
  freshet get item:{item_id}          # {title}, as rankers read it
  freshet explain item:{item_id}      # what was received of it, and what became of that
  freshet lag --watch
  freshet dead-letters list items
  echo '{{"type": "item.upserted", "item_id": "{item_id}", "version": 100000,
         "item": {{"title": "A new name"}}}}' | tr -d '\\n' | freshet produce -
  freshet get user:{user_id}
  freshet explain user:{user_id}      # history, taste, why a language model was or was not asked
  echo '{{"type": "user.behaviour", "user_id": "me", "event_id": "1", "item_id": "{item_id}",
         "action": "like"}}' | tr -d '\\n' | freshet produce -    # then: freshet get user:me
  freshet erase user:{user_id}
  freshet doctor

Logs: {_shown(root / "logs")}. To stop it: make demo ARGS=--stop"""


def _stop_lane(name: str, pid: int) -> None:
    terminate_pid(pid, _marker(name), timeout_seconds=_STOP_SECONDS)


def _marker(name: str) -> str:
    return "streams.cli.main " + ("llm serve" if name == MODEL else f"lane {name}")


def _lanes(root: Path) -> dict[str, int]:
    try:
        lanes = json.loads((root / _STATE_FILE).read_text())
        return {str(name): int(pid) for name, pid in lanes.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _shown(path: Path) -> str:
    """Return the path as it is shortest to type from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path.absolute())
