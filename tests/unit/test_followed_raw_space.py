"""The raw space, as lanes know it that encode nothing."""

import pytest

from schemas.errors import Transient
from schemas.spaces import SpaceRecord
from streams.followed_raw_space import FollowedRawSpace
from tests.live_builders import space_record


class Registry:
    """A RegistryPort."""

    def __init__(self, *adaptors: str) -> None:
        self.adaptors = adaptors

    async def spaces(self) -> dict[str, SpaceRecord]:
        return {f"space-{n}": _space(f"space-{n}", one) for n, one in enumerate(self.adaptors)}


def _space(name: str, adaptor_id: str) -> SpaceRecord:
    record = space_record(name)
    space = record.space.model_copy(update={"adaptor_id": adaptor_id})
    return record.model_copy(update={"space": space})


async def test_the_raw_space_is_the_one_whose_adaptor_does_nothing():
    followed = FollowedRawSpace(Registry("parts-pca", "raw", "learn"))
    assert followed.raw() is None

    await followed.refresh()

    raw = followed.raw()
    assert raw is not None
    assert raw.name == "space-1"


async def test_without_a_raw_space_there_is_none():
    followed = FollowedRawSpace(Registry("parts-pca"))

    await followed.refresh()

    assert followed.raw() is None


async def test_of_two_raw_spaces_neither_is_taken():
    followed = FollowedRawSpace(Registry("raw", "raw"))

    with pytest.raises(Transient):
        await followed.refresh()

    assert followed.raw() is None
