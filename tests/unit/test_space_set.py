"""The spaces a lane writes: those the registry gives it, all of them or none."""

import pytest

from schemas.errors import ConfigurationError, Transient
from schemas.spaces import SpaceRecord, SpaceState
from streams.space_set import SpaceSet
from tests.space_builders import RAW, pca_space, raw_space, registered, save


class Registry:
    """The registry, in memory."""

    def __init__(self, *records: SpaceRecord) -> None:
        self.records = {record.space.name: record for record in records}

    def put(self, *records: SpaceRecord) -> None:
        self.records |= {record.space.name: record for record in records}

    async def spaces(self) -> dict[str, SpaceRecord]:
        return dict(self.records)


PCA, OTHER = pca_space("pca"), pca_space("other", 4)


@pytest.fixture
def directory(tmp_path):
    save(tmp_path, raw_space(), PCA)
    return tmp_path


def names(spaces: SpaceSet) -> list[str]:
    return [adaptor.space.name for adaptor in spaces.adaptors()]


async def test_nothing_is_written_before_the_registry_was_read(directory):
    spaces = SpaceSet(Registry(registered(raw_space())), directory, lane="encode")

    with pytest.raises(Transient, match="not read yet"):
        spaces.adaptors()
    assert spaces.raw.name == RAW


async def test_nothing_is_written_before_the_first_space_is_created(directory):
    registry = Registry()
    spaces = SpaceSet(registry, directory, lane="encode")

    await spaces.refresh()
    with pytest.raises(Transient, match="freshet spaces create"):
        spaces.adaptors()

    registry.put(registered(PCA), registered(raw_space()))
    await spaces.refresh()
    assert names(spaces) == [RAW, "pca"]


async def test_a_lane_writes_its_own_spaces_until_they_retire(directory):
    registry = Registry(
        registered(raw_space()), registered(PCA, SpaceState.BACKFILLING, "encode.pca")
    )
    main = SpaceSet(registry, directory, lane="encode")
    own = SpaceSet(registry, directory, lane="encode.pca")

    await main.refresh()
    await own.refresh()
    assert names(main) == [RAW]
    assert names(own) == ["pca"]

    for state, written in (
        (SpaceState.ACTIVE, ["pca"]),
        (SpaceState.RETIRING, []),
        (SpaceState.RETIRED, []),
    ):
        registry.put(registered(PCA, state, "encode.pca"))
        await own.refresh()
        assert names(own) == written


async def test_a_space_that_is_not_on_this_machine_stops_the_lane_until_it_is(directory):
    registry = Registry(registered(raw_space()), registered(PCA), registered(OTHER))
    spaces = SpaceSet(registry, directory, lane="encode")

    await spaces.refresh()
    with pytest.raises(Transient, match="space other"):
        spaces.adaptors()

    save(directory, OTHER)
    await spaces.refresh()
    assert names(spaces) == [RAW, "other", "pca"]


async def test_another_space_of_the_same_name_is_not_taken_for_the_registered_one(directory):
    registry = Registry(registered(raw_space()), registered(pca_space("pca", 5)))
    spaces = SpaceSet(registry, directory, lane="encode")

    await spaces.refresh()

    with pytest.raises(Transient, match="another space of that name"):
        spaces.adaptors()


async def test_adaptors_are_loaded_once(directory):
    spaces = SpaceSet(Registry(registered(raw_space()), registered(PCA)), directory, lane="encode")

    await spaces.refresh()
    before = spaces.adaptors()
    await spaces.refresh()

    assert all(one is other for one, other in zip(spaces.adaptors(), before, strict=True))


def test_a_directory_without_a_raw_space_is_a_wrong_setting(tmp_path):
    with pytest.raises(ConfigurationError, match="freshet spaces fit"):
        SpaceSet(Registry(), tmp_path, lane="encode")
