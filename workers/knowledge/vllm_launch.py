"""The command line and environment of a vLLM server, as Freshet wants it run. Pure.

The server has its own Python (deploy/vllm): nothing of vLLM is ever imported here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from schemas.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
_MODULE = "vllm.entrypoints.openai.api_server"
_MIDDLEWARE = "allowed_paths.AllowedPaths"
_STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
"""A weak model may otherwise write blanks between two keys until its tokens run out."""

_ON_A_CPU = ("--enforce-eager", "--block-size", "32")
"""The prefix cache holds whole blocks: by default, of 128 tokens, up to 127 of what all prompts
share are read again for each."""

_NOT_INHERITED = ("FRESHET_", "PYTHON", "VIRTUAL_ENV", "VLLM_API_KEY")
"""Settings and secrets of the lanes, and paths that lead to our Python's modules."""


class Device(StrEnum):
    """What the model runs on; also the name of the lock that the environment is made from."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class VllmLaunch:
    """One server to start.

    `project` is the folder of vLLM's project (deploy/vllm), absolute like `model_dir`, the folder
    of the model's files; `model` is the id under which it serves. `context_tokens` bounds prompt
    and answer together, `max_num_seqs` the answers written at once; `cache_gib` is the memory of
    the key-value cache on a CPU (a GPU gives what it has left). `more` are further options of vLLM.
    """

    project: Path
    model_dir: Path
    model: str
    device: Device
    host: str = LOOPBACK
    port: int = 8000
    context_tokens: int = 8192
    max_num_seqs: int = 32
    cache_gib: int = 1
    more: Sequence[str] = ()

    def __post_init__(self) -> None:
        for option in self.more:
            name = option.partition("=")[0].replace("_", "-")
            if name.startswith("--") and any(own.startswith(name) for own in _OWN_OPTIONS):
                raise ConfigurationError(option, "this option of vLLM is not to be chosen here")

    @property
    def url(self) -> str:
        """Where the server is reached from this machine."""
        host = LOOPBACK if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  # compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def command(self) -> tuple[str, ...]:
        """Return program and arguments; no secret is among them, because anyone may list them."""
        return (
            # As a module: the command `vllm` of the CPU build finds no distribution of its name.
            *(str(self.project / ".venv/bin/python"), "-m", _MODULE),
            *("--model", str(self.model_dir)),
            *("--served-model-name", self.model),
            *("--host", self.host),
            *("--port", str(self.port)),
            *("--max-model-len", str(self.context_tokens)),
            *("--max-num-seqs", str(self.max_num_seqs)),
            "--enable-prefix-caching",
            *("--scheduling-policy", "priority"),
            *("--structured-outputs-config", json.dumps(_STRUCTURED_OUTPUTS)),
            "--no-trust-request-chat-template",
            *("--middleware", _MIDDLEWARE),
            "--no-enable-log-requests",  # they hold prompts
            *("--uvicorn-log-level", "warning"),
            "--disable-fastapi-docs",
            *(_ON_A_CPU if self.device is Device.CPU else ()),
            *self.more,
        )

    def environment(self, inherited: Mapping[str, str], *, api_key: str) -> dict[str, str]:
        """Return the server's environment: ours without our settings, and offline."""
        kept = {
            name: value for name, value in inherited.items() if not name.startswith(_NOT_INHERITED)
        }
        made = {
            "VLLM_API_KEY": api_key,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # Neither the folder it is started in nor a user's own packages belong to its program.
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONPATH": str(self.project),  # the middleware
        }
        if self.device is Device.CPU:
            made["VLLM_CPU_KVCACHE_SPACE"] = str(self.cache_gib)
        return kept | made


_OWN_OPTIONS = (
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--scheduling-policy",
    "--structured-outputs-config",
    "--trust-request-chat-template",
    "--enable-log-requests",
    "--middleware",
    "--config",
)
