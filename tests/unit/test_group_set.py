"""The groups a lane uses: those the registry names, once they are at hand."""

import pytest
from structlog.testing import capture_logs

from schemas.entities import EntityKind
from schemas.groups import GroupsRecord
from streams.group_set import GroupSet
from tests.group_builders import CRIME, cut, in_use
from workers.grouping.group_files import load_with_digest, save_groups


class Registry:
    """The registry, in memory."""

    def __init__(self, *records: GroupsRecord) -> None:
        self.records = {record.kind: record for record in records}

    async def groups(self) -> dict[EntityKind, GroupsRecord]:
        return dict(self.records)


def saved(directory, groups) -> GroupsRecord:
    save_groups(directory, groups)
    return in_use(groups.name, load_with_digest(directory, groups.name).digest)


async def test_there_are_none_before_the_first_activation(tmp_path):
    groups = GroupSet(Registry(), tmp_path)

    assert groups.current() is None
    await groups.refresh()
    assert groups.current() is None


async def test_the_cut_in_use_is_followed(tmp_path):
    registry = Registry(saved(tmp_path, cut()))
    groups = GroupSet(registry, tmp_path)

    await groups.refresh()
    first = groups.current()
    await groups.refresh()

    assert first is not None
    assert first.name == "films"
    assert groups.current() is first, "it is read once"
    registry.records[EntityKind.ITEM] = saved(tmp_path, cut("films-2", groups=(CRIME,)))
    await groups.refresh()
    second = groups.current()
    assert second is not None
    assert (second.name, len(second.groups)) == ("films-2", 1)


@pytest.mark.parametrize("trouble", ["missing", "another"])
async def test_a_cut_that_is_not_at_hand_leaves_the_one_before_it_in_use(tmp_path, trouble):
    registry = Registry(saved(tmp_path, cut()))
    groups = GroupSet(registry, tmp_path)
    await groups.refresh()
    if trouble == "another":
        save_groups(tmp_path, cut("films-2"))
    registry.records[EntityKind.ITEM] = in_use("films-2", "0" * 64)

    with capture_logs() as logs:
        await groups.refresh()
        await groups.refresh()

    current = groups.current()
    assert current is not None
    assert current.name == "films"
    assert [line["event"] for line in logs] == ["groups_missing"], "said once, not every second"


async def test_a_cut_that_arrives_later_is_found(tmp_path):
    record = saved(tmp_path / "elsewhere", cut())
    groups = GroupSet(Registry(record), tmp_path / "here")
    await groups.refresh()
    assert groups.current() is None

    save_groups(tmp_path / "here", cut())
    await groups.refresh()

    assert groups.current() is not None


async def test_groups_of_another_kind_are_not_those_asked_for(tmp_path):
    record = saved(tmp_path, cut()).model_copy(update={"kind": EntityKind.USER})
    users = GroupSet(Registry(record), tmp_path, kind=EntityKind.USER)

    await users.refresh()

    assert users.current() is None
