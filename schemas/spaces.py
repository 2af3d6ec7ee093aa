"""Spaces: the sets of vectors that may be compared with one another, and their life cycle."""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.entities import EntityKind

SPACE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class SpaceState(StrEnum):
    """Where a space stands. `active` means that an alias may point at it and lanes write it."""

    BACKFILLING = "backfilling"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"


class Space(BaseModel):
    """A space as `space.json` declares it: never changed after creation; refit means a new one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=SPACE_NAME)
    kinds: tuple[EntityKind, ...]
    encoder_id: str
    adaptor_id: str = Field(description="raw, parts-pca, learn or reki")
    parts: tuple[str, ...] = Field(min_length=1, max_length=32)
    part_dim: int = Field(gt=0)
    dim: int = Field(gt=0, le=65535)
    dtype: Literal["float16", "float32"] = "float16"
    metric: Literal["cosine", "dot"] = "cosine"
    user_vectors: Literal["histories", "knowledge"] = "histories"
    fitted_on: dict[str, str | int] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)


class SpaceRecord(BaseModel):
    """A value of the compacted `control` topic under key `space:<name>`."""

    model_config = ConfigDict(frozen=True)

    space: Space
    state: SpaceState
    writer: str = Field(description="the lane that writes it: encode or encode.<space>")
    changed_at_ms: int
    default: tuple[float, ...] | None = Field(
        None, description="Vector of entities that have none: the catalogue mean; zeros if absent"
    )


class AliasRecord(BaseModel):
    """A value of the compacted `control` topic under key `alias:<kind>`."""

    model_config = ConfigDict(frozen=True)

    kind: EntityKind
    space: str
    changed_at_ms: int
