"""Space directories: `<dir>/<name>/space.json` and `adaptor.safetensors`.

`space.json` declares the space, the golden texts of the parity probe and the digest of the tensor
file; the tensor file holds the adaptor's arrays and the golden vectors. A directory appears whole
(written aside, then renamed) and never changes: a refit is a new space.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from schemas.errors import ConfigurationError
from schemas.spaces import SPACE_NAME, Space
from workers.adaptors import hein, learn, parts_pca, raw
from workers.adaptors.adaptor import Adaptor, Array
from workers.adaptors.whole_directory import put_whole
from workers.encoding.parity import Golden

SPACE_FILE = "space.json"
TENSOR_FILE = "adaptor.safetensors"

_GOLDEN = "golden"


class _Declaration(BaseModel):
    """The content of `space.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    space: Space
    golden_texts: tuple[str, ...]
    tensors_sha256: str


class LoadedSpace(NamedTuple):
    """A space, the adaptor that makes its vectors and what its encoder must reproduce."""

    space: Space
    adaptor: Adaptor
    golden: Golden


def save_space(directory: Path, adaptor: Adaptor, golden: Golden) -> Path:
    """Write the space below `directory` and return its own directory.

    Raises ConfigurationError when it is there already with another content.
    """
    target = _space_directory(directory, adaptor.space.name)
    tensors = {name: np.ascontiguousarray(array) for name, array in adaptor.tensors().items()}
    data = dump_tensors({**tensors, _GOLDEN: np.ascontiguousarray(golden.vectors)})
    declaration = _Declaration(
        space=adaptor.space,
        golden_texts=golden.texts,
        tensors_sha256=sha256(data).hexdigest(),
    )
    written = declaration.model_dump_json(indent=2).encode() + b"\n"
    if (
        not put_whole(target, {TENSOR_FILE: data, SPACE_FILE: written})
        and _read_declaration(target, adaptor.space.name) != declaration
    ):
        raise ConfigurationError(
            f"space {adaptor.space.name}", f"{target} exists with another content"
        )
    return target


def load_space(directory: Path, name: str) -> LoadedSpace:
    """Return the space `name` of `directory`; raises ConfigurationError saying what is wrong."""
    target = _space_directory(directory, name)
    declaration = _read_declaration(target, name)
    tensors = _read_tensors(target / TENSOR_FILE, declaration)
    space = declaration.space
    vectors = tensors.pop(_GOLDEN, None)
    if vectors is None or vectors.shape != (len(declaration.golden_texts), space.part_dim):
        raise ConfigurationError(f"space {name}", "its golden vectors do not fit its golden texts")
    golden = Golden(declaration.golden_texts, vectors)
    return LoadedSpace(space, _adaptor(space, tensors), golden)


def list_spaces(directory: Path) -> list[str]:
    """Return the names of the spaces in `directory`, sorted; none when it does not exist."""
    return sorted(
        path.parent.name
        for path in directory.glob(f"*/{SPACE_FILE}")
        if re.fullmatch(SPACE_NAME, path.parent.name)
    )


def _adaptor(space: Space, tensors: dict[str, Array]) -> Adaptor:
    match space.adaptor_id:
        case raw.ADAPTOR_ID:
            return raw.RawAdaptor.from_tensors(space, tensors)
        case parts_pca.ADAPTOR_ID:
            return parts_pca.PartsPca.from_tensors(space, tensors)
        case learn.ADAPTOR_ID:
            return learn.LearnAdaptor.from_tensors(space, tensors)
        case hein.ADAPTOR_ID:
            return hein.HeinAdaptor.from_tensors(space, tensors)
        case other:
            raise ConfigurationError(f"space {space.name}", f"no adaptor is called {other!r}")


def _space_directory(directory: Path, name: str) -> Path:
    if not re.fullmatch(SPACE_NAME, name):
        raise ConfigurationError("space", f"{name!r} is not a space name")
    return directory / name


def _read_declaration(target: Path, name: str) -> _Declaration:
    path = target / SPACE_FILE
    try:
        declaration = _Declaration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"space {name}", f"cannot read {path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"space {name}", f"{path}: {where}: {first['msg']}") from error
    if declaration.space.name != name:
        raise ConfigurationError(
            f"space {name}", f"{path} declares the space {declaration.space.name}"
        )
    return declaration


def _read_tensors(path: Path, declaration: _Declaration) -> dict[str, Array]:
    name = declaration.space.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"space {name}", f"cannot read {path}: {error}") from error
    if sha256(data).hexdigest() != declaration.tensors_sha256:
        raise ConfigurationError(f"space {name}", f"{path} is not the file that was written")
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise ConfigurationError(f"space {name}", f"{path}: {error}") from error
