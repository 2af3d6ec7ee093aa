"""Model folders on this machine: finding one by its id, and making the one that ships as a package.

A model's id is its folder's name: what a server declares is what its files are called. Nothing is
downloaded.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError, Transient

BUNDLED_MODEL = "smollm2-135m-instruct"
"""Small enough for a laptop and the CI; its weights are in the environment of deploy/vllm."""

_CONVERTER = "convert_smollm2.py"
_CONVERT_SECONDS = 300.0
_SAID_CHARS = 500


@dataclass(frozen=True, slots=True)
class VllmProject:
    """The folder of vLLM's own project (deploy/vllm) and the environment in it."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ".venv" / "bin" / "python"

    def installed_device(self) -> str:
        """Return what it is installed for, "cpu" or "gpu"; raises ConfigurationError."""
        # Written last by the Makefile: an environment without it is only half there.
        installed = self.folder / ".venv" / ".installed"
        if not installed.is_file() or not self.python.is_file():
            raise ConfigurationError(
                "FRESHET_LLM__PROJECT",
                f"vLLM is not installed in {self.folder / '.venv'}; "
                "`make llm-cpu` or `make llm-gpu` does it",
            )
        return installed.read_text("utf-8").split(maxsplit=1)[0]

    def require(self, device: str) -> None:
        """Raise ConfigurationError when the environment is not one for this device."""
        installed = self.installed_device()
        if installed != device:
            raise ConfigurationError(
                "--device",
                f"{self.folder / '.venv'} holds vLLM for a {installed}; `make llm-{device}` "
                f"replaces it by one for a {device}",
            )


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that vLLM can load."""

    model: str
    path: Path
    longest_context: int | None

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """Return the model in a folder; raises ConfigurationError."""
        try:
            config = json.loads((path / "config.json").read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError("--model", f"{path} holds no config.json") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError("--model", f"{path}/config.json: {error}") from error
        if not any(path.glob("*.safetensors")):
            raise ConfigurationError("--model", f"{path} holds no *.safetensors")
        return cls(path.resolve().name, path.resolve(), _longest_context(config))


def find_model(
    wanted: str,
    models_dir: Path,
    project: VllmProject,
    *,
    on_convert: Callable[[], None] = lambda: None,
) -> ModelFolder:
    """Return the model of a path or an id; the bundled one is converted when it is not there yet.

    Raises ConfigurationError when there is none, and Transient when it cannot be converted.
    """
    path = Path(wanted) if "/" in wanted else models_dir / wanted
    if path.is_dir():
        return ModelFolder.open(path)
    if path != models_dir / BUNDLED_MODEL:
        there = sorted({entry.parent.name for entry in models_dir.glob("*/config.json")})
        known = ", ".join(dict.fromkeys([BUNDLED_MODEL, *there]))
        raise ConfigurationError("--model", f"no folder {path}; by name there are: {known}")
    on_convert()
    _convert(path, project)
    return ModelFolder.open(path)


def _convert(path: Path, project: VllmProject) -> None:
    command = (str(project.python), str(project.folder / _CONVERTER), str(path))
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_CONVERT_SECONDS
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()[-_SAID_CHARS:]
        raise Transient("vllm", f"{BUNDLED_MODEL} was not converted: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Transient("vllm", f"{BUNDLED_MODEL} was not converted: {error}") from error


def _longest_context(config: Mapping[str, object]) -> int | None:
    # Models that also see or hear keep the language model's numbers one level down.
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        longest = part.get("max_position_embeddings")
        if isinstance(longest, int):
            return longest
    return None
