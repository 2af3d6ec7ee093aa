"""The sizes of a LEARN network, as its space declares them, and the tensors they ask for. Pure."""

from dataclasses import asdict, dataclass, fields
from typing import Self

from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors.trained_space import declared_sizes

CONTENT = "content"
RADIAL = "radial.weight"
ONLINE = "online"
LAYER = "layers.{}."
"""What the names of an encoder layer's tensors begin with."""


@dataclass(frozen=True, slots=True)
class LearnShape:
    """Sizes of the network: `width` of the encoder, `ffn` inside its layers, `dim` of vectors.

    `history` is how many items of a user it looks at: the newest ones (workers.towers.learn_tower).
    `centres` are the radial units of the content adaptor; with 0 it is linear.
    """

    width: int
    layers: int
    heads: int
    ffn: int
    dim: int
    history: int
    centres: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name == "centres" else 1
            if getattr(self, field.name) < least:
                raise ConfigurationError("learn", f"{field.name} must be at least {least}")
        if self.width % self.heads:
            raise ConfigurationError(
                "learn", f"width {self.width} is not a multiple of {self.heads} heads"
            )

    def declared(self) -> dict[str, str | int]:
        """Return what `of` finds in the `fitted_on` of a space."""
        return dict(asdict(self))

    @classmethod
    def of(cls, space: Space) -> Self:
        """Return the sizes that a space declares; raises ConfigurationError."""
        shape = cls(**declared_sizes(space, [field.name for field in fields(cls)]))
        if shape.dim != space.dim:
            raise ConfigurationError(
                f"space {space.name}", f"dim is {space.dim}, that of its network {shape.dim}"
            )
        return shape

    def tensor_shapes(self, parts: int, part_dim: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, by name; weights are (out, in) as in torch."""
        width, ffn = self.width, self.ffn
        shapes: dict[str, tuple[int, ...]] = {
            "mean": (parts, part_dim),
            "default": (self.dim,),
            "confidence": (parts,),
            f"{CONTENT}.weight": (width, parts * part_dim),
            f"{CONTENT}.bias": (width,),
            f"{ONLINE}.weight": (self.dim, width),
            f"{ONLINE}.bias": (self.dim,),
        }
        if self.centres:
            shapes |= {
                "centres": (parts, self.centres, part_dim),
                "sharpness": (1,),
                RADIAL: (width, self.centres),
            }
        for number in range(self.layers):
            prefix = LAYER.format(number)
            for name in ("query", "key", "value", "out"):
                shapes |= {
                    f"{prefix}{name}.weight": (width, width),
                    f"{prefix}{name}.bias": (width,),
                }
            shapes |= {
                f"{prefix}up.weight": (ffn, width),
                f"{prefix}up.bias": (ffn,),
                f"{prefix}down.weight": (width, ffn),
                f"{prefix}down.bias": (width,),
            }
            for norm in ("attention_norm", "ffn_norm"):
                shapes |= {f"{prefix}{norm}.weight": (width,), f"{prefix}{norm}.bias": (width,)}
        return shapes
