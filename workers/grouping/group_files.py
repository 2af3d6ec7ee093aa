"""Group directories: `<dir>/<name>/groups.json` and `groups.safetensors`.

`groups.json` says what the groups are and the digest of the tensor file, which holds the mean and
the centroids. A directory appears whole (written aside, then renamed) and never changes: a re-cut
is a new one. The digest of `groups.json` therefore stands for everything; `control` carries it.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from schemas.entities import EntityKind, checked_id
from schemas.errors import ConfigurationError, InvalidInput
from schemas.spaces import SPACE_NAME
from workers.adaptors.adaptor import Array
from workers.adaptors.whole_directory import put_whole
from workers.grouping.groups import Group, Groups

GROUPS_FILE = "groups.json"
TENSOR_FILE = "groups.safetensors"

_MEAN = "mean"
_CENTROIDS = "centroids"


def _entity_id(id_: str) -> str:
    try:
        return checked_id(id_)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, AfterValidator(_entity_id)]
    size: int = Field(ge=1)
    exemplars: tuple[dict[str, JsonValue], ...]


class _Declaration(BaseModel):
    """The content of `groups.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    name: str
    kind: EntityKind
    encoder_id: str
    parts: tuple[str, ...] = Field(min_length=1)
    part_dim: int = Field(gt=0)
    groups: tuple[_Group, ...] = Field(min_length=1)
    tensors_sha256: str


class LoadedGroups(NamedTuple):
    """A cut and the digest of its files."""

    groups: Groups
    digest: str


def save_groups(directory: Path, groups: Groups) -> Path:
    """Write the groups below `directory` and return their own directory.

    Raises ConfigurationError when it is there already with another content.
    """
    target = _groups_directory(directory, groups.name)
    tensors = dump_tensors(
        {
            _MEAN: np.ascontiguousarray(groups.mean, np.float32),
            _CENTROIDS: np.ascontiguousarray(groups.centroids, np.float32),
        }
    )
    declaration = _Declaration(
        name=groups.name,
        kind=groups.kind,
        encoder_id=groups.encoder_id,
        parts=groups.parts,
        part_dim=groups.part_dim,
        groups=tuple(
            _Group.model_validate({"id": one.id, "size": one.size, "exemplars": one.exemplars})
            for one in groups.groups
        ),
        tensors_sha256=sha256(tensors).hexdigest(),
    )
    written = declaration.model_dump_json(indent=1).encode() + b"\n"
    if (
        not put_whole(target, {TENSOR_FILE: tensors, GROUPS_FILE: written})
        and _read(target / GROUPS_FILE, groups.name) != written
    ):
        raise ConfigurationError(f"groups {groups.name}", f"{target} exists with another content")
    return target


def load_groups(directory: Path, name: str) -> Groups:
    """Return the groups `name` of `directory`; raises ConfigurationError saying what is wrong."""
    return load_with_digest(directory, name).groups


def load_with_digest(directory: Path, name: str) -> LoadedGroups:
    """Return the groups and the digest that `control` names them by; raises ConfigurationError."""
    target = _groups_directory(directory, name)
    written = _read(target / GROUPS_FILE, name)
    declaration = _declaration(written, target, name)
    tensors = _read_tensors(target / TENSOR_FILE, declaration)
    groups = Groups(
        name=name,
        kind=declaration.kind,
        encoder_id=declaration.encoder_id,
        parts=declaration.parts,
        part_dim=declaration.part_dim,
        mean=tensors[_MEAN],
        centroids=tensors[_CENTROIDS],
        groups=tuple(Group(one.id, one.size, one.exemplars) for one in declaration.groups),
    )
    return LoadedGroups(groups, sha256(written).hexdigest())


def list_groups(directory: Path) -> list[str]:
    """Return the names of the cuts in `directory`, sorted; none when it does not exist."""
    return sorted(
        path.parent.name
        for path in directory.glob(f"*/{GROUPS_FILE}")
        if re.fullmatch(SPACE_NAME, path.parent.name)
    )


def _groups_directory(directory: Path, name: str) -> Path:
    if not re.fullmatch(SPACE_NAME, name):
        raise ConfigurationError("groups", f"{name!r} is not a name of groups")
    return directory / name


def _declaration(written: bytes, target: Path, name: str) -> _Declaration:
    path = target / GROUPS_FILE
    try:
        declaration = _Declaration.model_validate_json(written)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigurationError(f"groups {name}", f"{path}: {where}: {first['msg']}") from error
    if declaration.name != name:
        raise ConfigurationError(f"groups {name}", f"{path} declares the groups {declaration.name}")
    if len({one.id for one in declaration.groups}) != len(declaration.groups):
        raise ConfigurationError(f"groups {name}", f"{path}: two groups have one id")
    return declaration


def _read_tensors(path: Path, declaration: _Declaration) -> dict[str, Array]:
    name = declaration.name
    data = _read(path, name)
    if sha256(data).hexdigest() != declaration.tensors_sha256:
        raise ConfigurationError(f"groups {name}", f"{path} is not the file that was written")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise ConfigurationError(f"groups {name}", f"{path}: {error}") from error
    flat = len(declaration.parts) * declaration.part_dim
    for tensor, shape in ((_MEAN, (flat,)), (_CENTROIDS, (len(declaration.groups), flat))):
        if tensor not in tensors or tensors[tensor].shape != shape:
            found = tensors[tensor].shape if tensor in tensors else "missing"
            raise ConfigurationError(
                f"groups {name}", f"tensor {tensor} is {found}, needed {shape}"
            )
    return tensors


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"groups {name}", f"cannot read {path}: {error}") from error
