"""Which cut of the catalogue into groups is in use: a record of the `control` topic."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.entities import EntityKind
from schemas.spaces import SPACE_NAME


class GroupsRecord(BaseModel):
    """A value of the compacted `control` topic under key `groups:<kind>`."""

    model_config = ConfigDict(frozen=True)

    kind: EntityKind = Field(description="What the members are: item")
    name: str = Field(pattern=SPACE_NAME, description="Directory of the cut in the groups folder")
    digest: str = Field(description="SHA-256 of its groups.json: the very cut, not its name alone")
    changed_at_ms: int
