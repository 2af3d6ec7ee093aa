"""The vLLM server of this machine, from settings: what to start, what lanes need to reach it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from streams.settings import KnowledgeSettings, LlmSettings, Settings
from workers.knowledge.sampling import Sampling
from workers.knowledge.vllm_launch import LOOPBACK, Device, VllmLaunch
from workers.knowledge.vllm_models import BUNDLED_MODEL, VllmProject, find_model
from workers.knowledge.vllm_process import stored_api_key

_CONTEXT_TOKENS = 8192
"""Above the longest prompt (its fields are bounded in bytes) and its answer."""

_MAX_NUM_SEQS: Mapping[Device, int] = {Device.CPU: 32, Device.GPU: 256}
_CALL_SECONDS: Mapping[Device, float] = {Device.CPU: 300.0, Device.GPU: 60.0}
_BACKLOG_BESIDE: Mapping[Device, int] = {Device.CPU: 0, Device.GPU: 32}
"""A GPU writes so many more answers in nearly the same time; a CPU writes none for nothing."""

_IN_FLIGHT_A_SEQUENCE = 2
"""So that the server always has the next request at hand."""


BUNDLED_WRITING: Mapping[str, float] = MappingProxyType(
    {
        "max_tokens": 300,
        "max_factor_chars": 140,
        "temperature": 0.3,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "refused_share": 1.1,
    }
)
"""Knowledge settings for the bundled model: without a penalty it goes round in circles, with one
above that it turns to symbols, and given more room it does not end."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for; None leaves it to the settings or to what is installed."""

    model: str | None = None
    device: Device | None = None
    host: str = LOOPBACK
    port: int = 8000
    max_num_seqs: int | None = None
    context_tokens: int | None = None
    more: Sequence[str] = ()


def plan_launch(
    settings: Settings, wish: Wish, *, on_convert: Callable[[], None] = lambda: None
) -> VllmLaunch:
    """Return the server to start, with its model on disk.

    The model serves under the name of its folder. Raises ConfigurationError when the environment,
    the device or the model is missing, Transient when the model cannot be made.
    """
    project = VllmProject(settings.llm.project.resolve())
    device = wish.device or Device(project.installed_device())
    project.require(device)
    found = find_model(
        wish.model or declared_model(settings.knowledge),
        settings.llm.models_dir,
        project,
        on_convert=on_convert,
    )
    context = wish.context_tokens or min(_CONTEXT_TOKENS, found.longest_context or _CONTEXT_TOKENS)
    return VllmLaunch(
        project=project.folder,
        model_dir=found.path,
        model=found.model,
        device=device,
        host=wish.host,
        port=wish.port,
        context_tokens=context,
        max_num_seqs=wish.max_num_seqs or _MAX_NUM_SEQS[device],
        more=tuple(wish.more),
    )


def writing_settings(knowledge: KnowledgeSettings, model: str | None = None) -> KnowledgeSettings:
    """Return how lanes write with a model, by default the declared one.

    While they do not write by vLLM: how they will, with the settings that `serve` prints.
    """
    declared = model or declared_model(knowledge)
    printed = {} if knowledge.writer == "vllm" else _writing_of(declared)
    return KnowledgeSettings.model_validate(
        {**knowledge.model_dump(), **printed, "model": declared}
    )


def declared_model(knowledge: KnowledgeSettings) -> str:
    """Return the model that the lanes declare; the bundled one while they do not write by vLLM."""
    return knowledge.model if knowledge.writer == "vllm" else BUNDLED_MODEL


def api_key(settings: Settings) -> str:
    """Return the given key, or the one stored for this machine's server (made when missing)."""
    given = settings.knowledge.vllm_api_key.get_secret_value()
    return given or stored_api_key(api_key_file(settings.llm))


def sampling_of(knowledge: KnowledgeSettings) -> Sampling:
    """Return how the settings let the model pick its words."""
    return Sampling(
        temperature=knowledge.temperature,
        top_p=knowledge.top_p,
        frequency_penalty=knowledge.frequency_penalty,
        repetition_penalty=knowledge.repetition_penalty,
    )


def known_api_key(settings: Settings) -> str:
    """Return the given key or the stored one, nothing when there is neither."""
    there = settings.knowledge.vllm_api_key or api_key_file(settings.llm).is_file()
    return api_key(settings) if there else ""


def api_key_file(llm: LlmSettings) -> Path:
    """Return where the key of this machine's server is kept."""
    return llm.run_dir / "api-key"


def log_file(llm: LlmSettings) -> Path:
    """Return where the server's output goes."""
    return llm.run_dir / "server.log"


def lane_variables(launch: VllmLaunch) -> Mapping[str, str]:
    """Return the settings that make lanes write by this server; the API key is not among them."""
    return {
        "FRESHET_KNOWLEDGE__WRITER": "vllm",
        "FRESHET_KNOWLEDGE__MODEL": launch.model,
        "FRESHET_KNOWLEDGE__VLLM_URL": launch.url,
        "FRESHET_KNOWLEDGE__VLLM_ACCEPTS_PRIORITY": "true",
        "FRESHET_KNOWLEDGE__IN_FLIGHT": str(_IN_FLIGHT_A_SEQUENCE * launch.max_num_seqs),
        "FRESHET_KNOWLEDGE__BACKLOG_BESIDE": str(_BACKLOG_BESIDE[launch.device]),
        "FRESHET_KNOWLEDGE__CALL_SECONDS": f"{_CALL_SECONDS[launch.device]:g}",
        **{
            f"FRESHET_KNOWLEDGE__{name.upper()}": f"{value:g}"
            for name, value in _writing_of(launch.model).items()
        },
    }


def _writing_of(model: str) -> Mapping[str, float]:
    return BUNDLED_WRITING if model == BUNDLED_MODEL else {}
