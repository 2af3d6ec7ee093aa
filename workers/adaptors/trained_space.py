"""What the spaces of trained networks have in common: what they declare, and that it is complete.

Sizes and the raw space that user towers read items in stand in `fitted_on` of `space.json`. Pure.
"""

from collections.abc import Iterable, Mapping

from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors.adaptor import Array
from workers.adaptors.raw import raw_adaptor

RAW_SPACE = "raw_space"
"""The entry of `fitted_on` that names the raw space."""


def declared_raw_space(space: Space) -> Space:
    """Return the raw space of a space whose tensors were checked."""
    name = str(space.fitted_on[RAW_SPACE])
    return raw_adaptor(space.encoder_id, space.parts, space.part_dim, name=name).space


def declared_sizes(space: Space, names: Iterable[str]) -> dict[str, int]:
    """Return the declared sizes; raises ConfigurationError on the first missing."""
    sizes: dict[str, int] = {}
    for name in names:
        value = space.fitted_on.get(name)
        if not isinstance(value, int):
            raise ConfigurationError(
                f"space {space.name}", f"fitted_on.{name} is {value!r}, needed a number"
            )
        sizes[name] = value
    return sizes


def check_tensors(
    space: Space, needed: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Array]
) -> None:
    """Raise ConfigurationError unless the tensors are those needed and a raw space is named."""
    if not isinstance(space.fitted_on.get(RAW_SPACE), str):
        raise ConfigurationError(f"space {space.name}", "fitted_on does not name its raw space")
    found = {name: tensor.shape for name, tensor in tensors.items()}
    for name, shape in needed.items():
        if found.get(name) != shape:
            raise ConfigurationError(
                f"space {space.name}",
                f"tensor {name} is {found.get(name, 'missing')}, needed {shape}",
            )
    if extra := sorted(found.keys() - needed.keys()):
        raise ConfigurationError(f"space {space.name}", f"unknown tensors {', '.join(extra)}")
