"""The spaces with user vectors, as the registry names them: all of them or none."""

from pathlib import Path

import pytest

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.spaces import Space, SpaceRecord, SpaceState
from streams.user_spaces import UserSpaces
from tests.behaviour_builders import mean_space
from workers.towers.load_towers import TowerOptions

OPTIONS = TowerOptions(86_400_000.0, spaces_dir=Path("spaces"))


class Registry:
    """The registry, in memory."""

    def __init__(self, *records: SpaceRecord) -> None:
        self.records = {record.space.name: record for record in records}

    async def spaces(self) -> dict[str, SpaceRecord]:
        return dict(self.records)


def registered(space: Space, state: SpaceState = SpaceState.ACTIVE) -> SpaceRecord:
    return SpaceRecord(space=space, state=state, writer="encode", changed_at_ms=1)


async def followed(*records: SpaceRecord) -> UserSpaces:
    spaces = UserSpaces(Registry(*records), OPTIONS)
    await spaces.refresh()
    return spaces


def names(spaces: UserSpaces) -> list[str]:
    return [tower.space.name for tower in spaces.towers()]


async def test_live_spaces_whose_users_come_from_histories_have_towers():
    spaces = await followed(
        registered(mean_space("b"), SpaceState.BACKFILLING),
        registered(mean_space("a")),
        registered(mean_space("old"), SpaceState.RETIRING),
        registered(mean_space("older"), SpaceState.RETIRED),
        registered(mean_space("items", kinds=(EntityKind.ITEM,))),
        registered(mean_space("known", user_vectors="knowledge")),
    )

    assert names(spaces) == ["a", "b"]


async def test_a_deployment_without_such_spaces_has_no_towers():
    spaces = await followed(registered(mean_space("items", kinds=(EntityKind.ITEM,))))

    assert names(spaces) == []


async def test_nothing_is_known_before_the_registry_was_read_or_filled():
    registry = Registry()
    spaces = UserSpaces(registry, OPTIONS)

    with pytest.raises(Transient, match="not read yet"):
        spaces.towers()
    await spaces.refresh()
    with pytest.raises(Transient, match="freshet spaces create"):
        spaces.towers()

    registry.records["a"] = registered(mean_space("a"))
    await spaces.refresh()
    assert names(spaces) == ["a"]


async def test_a_space_without_a_tower_stops_the_lane_until_it_is_gone():
    registry = Registry(registered(mean_space("a")), registered(mean_space("b", adaptor_id="hein")))
    spaces = UserSpaces(registry, OPTIONS)

    await spaces.refresh()
    with pytest.raises(Transient, match="space b: no user tower"):
        spaces.towers()

    registry.records["b"] = registered(mean_space("b"), SpaceState.RETIRED)
    await spaces.refresh()
    assert names(spaces) == ["a"]


async def test_towers_are_made_once():
    spaces = await followed(registered(mean_space("a")))
    (before,) = spaces.towers()

    await spaces.refresh()

    assert spaces.towers()[0] is before


@pytest.mark.parametrize(
    ("space", "state", "wanted"),
    [
        (mean_space(user_vectors="knowledge"), SpaceState.ACTIVE, True),
        (mean_space(user_vectors="knowledge"), SpaceState.RETIRED, False),
        (mean_space(), SpaceState.ACTIVE, False),
    ],
)
async def test_users_are_written_about_while_a_live_space_needs_it(space, state, wanted):
    spaces = await followed(registered(space, state))

    assert spaces.wants_user_knowledge() is wanted
