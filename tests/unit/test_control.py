"""The control topic: the last record of a key counts, and what does not decode stops everything."""

import pytest

from schemas.entities import EntityKind
from schemas.errors import Transient
from schemas.spaces import AliasRecord, SpaceState
from streams.control import Control, alias_message, fold, groups_message, space_message
from streams.emitter import Outgoing
from tests.group_builders import in_use
from tests.live_builders import space_record


def rows(*messages: Outgoing) -> list[tuple[bytes | None, bytes | None]]:
    return [(message.key, message.value) for message in messages]


def alias(space: str) -> AliasRecord:
    return AliasRecord(kind=EntityKind.ITEM, space=space, changed_at_ms=1)


def test_the_last_record_of_every_key_counts():
    old, new = space_record("a"), space_record("a").model_copy(update={"state": SpaceState.RETIRED})

    control = fold(
        rows(
            space_message(old),
            alias_message(alias("a")),
            space_message(space_record("b")),
            alias_message(alias("b")),
            space_message(new),
            groups_message(in_use("films", "0" * 64, 1)),
            groups_message(in_use("films-2", "1" * 64, 2)),
        )
    )

    assert control == Control(
        {"a": new, "b": space_record("b")},
        {EntityKind.ITEM: "b"},
        {EntityKind.ITEM: in_use("films-2", "1" * 64, 2)},
    )


def test_a_null_takes_its_key_away_and_other_keys_are_passed_over():
    records = rows(space_message(space_record("a")), space_message(space_record("b")))

    control = fold([*records, (b"space:a", None), (b"groups", b"not json"), (None, b"{}")])

    assert list(control.spaces) == ["b"]
    assert control.aliases == {}


@pytest.mark.parametrize("key", [b"space:a", b"alias:item", b"groups:item"])
def test_a_record_that_does_not_decode_is_never_guessed_at(key):
    with pytest.raises(Transient, match="does not decode"):
        fold([(key, b'{"unknown": 1}')])


def test_only_the_last_record_of_a_key_must_decode():
    control = fold([(b"space:a", b"{}"), *rows(space_message(space_record("a")))])

    assert list(control.spaces) == ["a"]
