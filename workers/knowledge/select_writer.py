"""Choosing the writer by name: recorded, vllm, or `package.module:Class` for one's own."""

from importlib import import_module
from pathlib import Path

from schemas.errors import ConfigurationError
from workers.knowledge.recorded_writer import RecordedWriter
from workers.knowledge.vllm_connection import VllmServer
from workers.knowledge.vllm_writer import VllmWriter
from workers.knowledge.writer import Writer

_SETTING = "FRESHET_KNOWLEDGE__WRITER"


def select_writer(
    name: str, *, model: str, recorded_file: Path | None, server: VllmServer
) -> Writer:
    """Return the writer that `name` says; raises ConfigurationError.

    A class named by its dotted path is called with `model=` alone and must be a Writer.
    """
    match name:
        case "recorded":
            if recorded_file is None:
                raise ConfigurationError(
                    "FRESHET_KNOWLEDGE__RECORDED_FILE", "the recorded writer needs a file"
                )
            return RecordedWriter.load(recorded_file, model=model)
        case "vllm":
            return VllmWriter(server, model=model)
        case _:
            return _load_class(name, model)


def _load_class(name: str, model: str) -> Writer:
    module_name, separator, class_name = name.partition(":")
    if not separator:
        raise ConfigurationError(_SETTING, f"{name!r} is not recorded, vllm or module:Class")
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError as error:
        raise ConfigurationError(_SETTING, f"{name!r}: {error}") from error
    if not isinstance(found, type):
        raise ConfigurationError(_SETTING, f"{module_name!r} has no class {class_name!r}")
    writer = found(model=model)
    if not isinstance(writer, Writer):
        raise ConfigurationError(_SETTING, f"{name!r} has no model, write and aclose")
    return writer
