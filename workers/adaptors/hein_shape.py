"""The sizes of REKI's network, as its space declares them, and the tensors they ask for. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors.trained_space import declared_sizes

LIKED, DISLIKED, ITEM = range(3)
"""The towers of a space: what users liked, what left them cold, what the item is."""

TOWERS = 3

SHARED = "shared."
DEDICATED = "dedicated.{}."
GATES = "gates.{}."
"""What the names of tensors begin with; the number is the tower's."""


@dataclass(frozen=True, slots=True)
class HeinShape:
    """Inputs of `width` values, `towers` of them; experts width -> hidden -> out."""

    width: int
    towers: int = TOWERS
    shared: int = 2
    dedicated: int = 5
    hidden: int = 128
    out: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigurationError("reki", f"{field.name} must be at least 1")

    @property
    def dim(self) -> int:
        """Width of what all towers say, side by side."""
        return self.towers * self.out

    def block(self, tower: int) -> slice:
        """Return where a tower's values are among those of all."""
        return slice(tower * self.out, (tower + 1) * self.out)

    def declared(self) -> dict[str, str | int]:
        """Return what `of` finds in the `fitted_on` of a space."""
        return dict(asdict(self))

    @classmethod
    def of(cls, space: Space) -> Self:
        """Return the sizes that a space declares; raises ConfigurationError."""
        shape = cls(**declared_sizes(space, [field.name for field in fields(cls)]))
        if shape.towers != TOWERS or shape.dim != space.dim:
            raise ConfigurationError(
                f"space {space.name}",
                f"dim is {space.dim}, that of {shape.towers} towers {shape.dim}; {TOWERS} serve",
            )
        return shape

    def tensor_shapes(self, parts: int, part_dim: int) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each tensor of a space, by name."""
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (parts, part_dim),
            "projection": (parts * part_dim, self.width),
            "unknown": (self.towers, self.width),
            **self._experts(SHARED, self.shared),
        }
        for tower in range(self.towers):
            gate = GATES.format(tower)
            experts = self.shared + self.dedicated
            shapes |= self._experts(DEDICATED.format(tower), self.dedicated)
            shapes |= {f"{gate}weight": (experts, self.width), f"{gate}bias": (experts,)}
        return shapes

    def _experts(self, prefix: str, count: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{prefix}first": (count, self.width, self.hidden),
            f"{prefix}first_bias": (count, 1, self.hidden),
            f"{prefix}second": (count, self.hidden, self.out),
            f"{prefix}second_bias": (count, 1, self.out),
        }
