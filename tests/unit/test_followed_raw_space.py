"""The raw space, as lanes know it that encode nothing."""

from structlog.testing import capture_logs

from schemas.spaces import SpaceRecord, SpaceState
from streams.followed_raw_space import FollowedRawSpace
from tests.live_builders import space_record


class Registry:
    """A RegistryPort."""

    def __init__(self, *adaptors: str) -> None:
        self.adaptors = adaptors
        self.retired: set[str] = set()

    async def spaces(self) -> dict[str, SpaceRecord]:
        found = {f"space-{n}": _space(f"space-{n}", one) for n, one in enumerate(self.adaptors)}
        for name in self.retired:
            found[name] = found[name].model_copy(update={"state": SpaceState.RETIRED})
        return found


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

    with capture_logs() as told:
        await followed.refresh()
        await followed.refresh()

    assert followed.raw() is None
    assert [one["detail"] for one in told] == ["space-0, space-1 are written, needs one"]


async def test_a_second_raw_space_leaves_the_known_one_in_use_until_it_retires():
    registry = Registry("raw")
    followed = FollowedRawSpace(registry)
    await followed.refresh()

    registry.adaptors = ("raw", "raw")
    await followed.refresh()
    assert name_of(followed) == "space-0"

    registry.retired = {"space-0"}
    await followed.refresh()
    assert name_of(followed) == "space-1"


def name_of(followed: FollowedRawSpace) -> str | None:
    space = followed.raw()
    return None if space is None else space.name
