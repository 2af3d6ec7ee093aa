"""The server's command line and environment, and finding a model and vLLM's own environment."""

import json
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, Transient
from streams.llm_server import (
    BUNDLED_WRITING,
    Wish,
    known_api_key,
    lane_variables,
    plan_launch,
    writing_settings,
)
from streams.settings import KnowledgeSettings, Settings
from workers.knowledge.vllm_launch import Device, VllmLaunch
from workers.knowledge.vllm_models import BUNDLED_MODEL, VllmProject, find_model


def launch(**arguments) -> VllmLaunch:
    return VllmLaunch(
        Path("/project"),
        Path("/models/m"),
        **{"model": "m", "device": Device.CPU} | arguments,
    )


def value_of(option: str, command: tuple[str, ...]) -> str:
    return command[command.index(option) + 1]


def make_model(folder: Path, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048} | config))
    (folder / "model.safetensors").touch()
    return folder


def make_project(folder: Path, *, device: str = "cpu", python: str = "exit 0") -> VllmProject:
    project = VllmProject(folder)
    project.python.parent.mkdir(parents=True)
    project.python.write_text(f"#!/bin/sh\n{python}\n")
    project.python.chmod(0o755)
    (folder / ".venv" / ".installed").write_text(f"{device} 123 456\n")
    return project


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings.model_validate(
        {
            "llm": {
                "project": tmp_path / "project",
                "models_dir": tmp_path / "models",
                "run_dir": tmp_path / "run",
            }
        }
    )


def test_the_server_listens_on_the_loopback_interface_and_schedules_by_priority():
    command = launch().command()

    assert command[:3] == ("/project/.venv/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert value_of("--host", command) == "127.0.0.1"
    assert value_of("--scheduling-policy", command) == "priority"
    assert value_of("--served-model-name", command) == "m"
    assert "--enable-prefix-caching" in command
    assert "--enforce-eager" in command
    assert value_of("--block-size", command) == "32"


def test_callers_cannot_bring_a_chat_template_nor_reach_unguarded_paths():
    command = launch().command()

    assert "--no-trust-request-chat-template" in command
    assert value_of("--middleware", command) == "allowed_paths.AllowedPaths"
    assert "--no-enable-log-requests" in command


def test_blanks_between_keys_are_not_left_to_the_model():
    wanted = json.loads(value_of("--structured-outputs-config", launch().command()))

    assert wanted == {"backend": "xgrammar", "disable_any_whitespace": True}


def test_the_api_key_is_in_the_environment_and_not_in_the_command_line():
    started = launch()

    assert started.environment({}, api_key="secret")["VLLM_API_KEY"] == "secret"
    assert "secret" not in " ".join(started.command())


def test_the_server_inherits_neither_our_settings_nor_our_python():
    inherited = {
        "PATH": "/bin",
        "FRESHET_REDIS__URL": "redis://:password@host",
        "PYTHONPATH": "/ours",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": "/ours/.venv",
        "VLLM_API_KEY": "somebody's",
    }

    environment = launch().environment(inherited, api_key="key")

    assert environment["PATH"] == "/bin"
    assert environment["PYTHONPATH"] == "/project"
    assert environment["VLLM_API_KEY"] == "key"
    assert not {"FRESHET_REDIS__URL", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"} & set(environment)


def test_nothing_is_asked_of_a_model_hub():
    environment = launch().environment({"HF_HUB_OFFLINE": "0"}, api_key="key")

    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"


def test_a_gpu_gets_neither_the_options_nor_the_cache_of_a_cpu():
    on_gpu = launch(device=Device.GPU)

    assert not {"--enforce-eager", "--block-size"} & set(on_gpu.command())
    assert "VLLM_CPU_KVCACHE_SPACE" not in on_gpu.environment({}, api_key="key")
    assert launch().environment({}, api_key="key")["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.parametrize(
    "option",
    [
        "--trust-request-chat-template",
        "--trust_request_chat_template",
        "--trust-req",
        "--api-key=1",
        "--host=0.0.0.0",
        "--served-model-name",
    ],
)
def test_options_that_are_freshets_own_are_refused(option):
    with pytest.raises(ConfigurationError, match="not to be chosen here"):
        launch(more=(option,))


def test_other_options_of_vllm_come_last():
    assert launch(more=("--dtype", "float32")).command()[-2:] == ("--dtype", "float32")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("10.1.2.3", "http://10.1.2.3:8000"),
    ],
)
def test_the_address_is_one_that_this_machine_can_call(host, url):
    assert launch(host=host).url == url


def test_a_missing_environment_names_the_command_that_makes_it(settings):
    with pytest.raises(ConfigurationError, match="`make llm-cpu` or `make llm-gpu`"):
        plan_launch(settings, Wish())


def test_an_interrupted_installation_counts_as_none(settings):
    project = make_project(settings.llm.project)
    (project.folder / ".venv" / ".installed").unlink()

    with pytest.raises(ConfigurationError, match="vLLM is not installed"):
        plan_launch(settings, Wish())


def test_an_environment_for_another_device_names_the_command_that_replaces_it(settings):
    make_project(settings.llm.project, device="cpu")

    with pytest.raises(ConfigurationError, match="make llm-gpu"):
        plan_launch(settings, Wish(device=Device.GPU))


def test_without_a_wish_the_installed_device_and_the_bundled_model_are_served(settings):
    make_project(settings.llm.project, device="gpu")
    make_model(settings.llm.models_dir / BUNDLED_MODEL)

    planned = plan_launch(settings, Wish())

    assert (planned.device, planned.model) == (Device.GPU, BUNDLED_MODEL)


def test_a_model_with_a_short_context_is_not_asked_for_a_longer_one(settings):
    make_project(settings.llm.project)
    make_model(settings.llm.models_dir / "short", max_position_embeddings=2048)
    make_model(settings.llm.models_dir / "long", max_position_embeddings=131_072)

    assert plan_launch(settings, Wish(model="short")).context_tokens == 2048
    assert plan_launch(settings, Wish(model="long")).context_tokens == 8192


def test_the_model_that_the_lanes_declare_is_served_under_that_name(settings):
    declared = settings.model_copy(
        update={"knowledge": settings.knowledge.model_copy(update={"writer": "vllm", "model": "m"})}
    )
    make_project(settings.llm.project)
    make_model(settings.llm.models_dir / "m")

    assert plan_launch(declared, Wish()).model == "m"


def test_a_model_that_is_nowhere_is_named_with_those_that_are(tmp_path):
    make_model(tmp_path / "here")

    with pytest.raises(ConfigurationError, match=f"nowhere.*{BUNDLED_MODEL}, here"):
        find_model("nowhere", tmp_path, VllmProject(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_the_files_of_a_model_is_refused(tmp_path, missing):
    (make_model(tmp_path / "m") / missing).unlink()

    with pytest.raises(ConfigurationError, match=r"holds no "):
        find_model(str(tmp_path / "m"), tmp_path, VllmProject(tmp_path))


def test_the_bundled_model_is_made_once_by_vllms_own_python(tmp_path):
    # Stands for the converter: makes the folder that it is told to.
    made = 'mkdir -p "$2"; echo "{}" > "$2/config.json"; touch "$2/model.safetensors"'
    project = make_project(tmp_path / "project", python=made)
    conversions: list[str] = []

    first = find_model(
        BUNDLED_MODEL, tmp_path, project, on_convert=lambda: conversions.append("first")
    )
    second = find_model(
        BUNDLED_MODEL, tmp_path, project, on_convert=lambda: conversions.append("second")
    )

    assert first == second
    assert first.path == tmp_path / BUNDLED_MODEL
    assert conversions == ["first"]


def test_a_failed_conversion_says_what_the_converter_said(tmp_path):
    project = make_project(tmp_path / "project", python="echo no weights here >&2; exit 1")

    with pytest.raises(Transient, match="no weights here"):
        find_model(BUNDLED_MODEL, tmp_path, project)


def test_lanes_are_told_where_the_server_is_and_how_much_it_takes_at_once():
    told = lane_variables(launch(max_num_seqs=32, port=18_000))

    assert told == {
        "FRESHET_KNOWLEDGE__WRITER": "vllm",
        "FRESHET_KNOWLEDGE__MODEL": "m",
        "FRESHET_KNOWLEDGE__VLLM_URL": "http://127.0.0.1:18000",
        "FRESHET_KNOWLEDGE__VLLM_ACCEPTS_PRIORITY": "true",
        "FRESHET_KNOWLEDGE__IN_FLIGHT": "64",
        "FRESHET_KNOWLEDGE__BACKLOG_BESIDE": "0",
        "FRESHET_KNOWLEDGE__CALL_SECONDS": "300",
    }


def test_lanes_are_told_how_the_small_model_writes_best():
    told = lane_variables(launch(model=BUNDLED_MODEL))

    settings = KnowledgeSettings(
        **{name.removeprefix("FRESHET_KNOWLEDGE__").lower(): value for name, value in told.items()}
    )
    assert settings.repetition_penalty == BUNDLED_WRITING["repetition_penalty"]
    assert settings.refused_share > 1, "a weak model is no ill one"
    assert settings == writing_settings(settings)


def test_a_check_before_any_lane_writes_as_lanes_will():
    recorded, other = KnowledgeSettings(), KnowledgeSettings(writer="vllm", model="m")

    assert writing_settings(recorded).model == BUNDLED_MODEL
    assert writing_settings(recorded).max_factor_chars == BUNDLED_WRITING["max_factor_chars"]
    assert writing_settings(recorded, "m") == recorded.model_copy(update={"model": "m"})
    assert writing_settings(other) == other


def test_looking_for_a_key_makes_none(settings):
    assert known_api_key(settings) == ""
    assert not settings.llm.run_dir.exists()
