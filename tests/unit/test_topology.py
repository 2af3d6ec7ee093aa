import pytest

from schemas.errors import ConfigurationError
from schemas.spaces import SpaceRecord, SpaceState
from schemas.topics import Topic
from streams.topology import LANES, deployed_lanes, group_id, lane_inputs, space_lane_of_group
from tests.fakes.encoding import SumAdaptor


def test_every_lane_reads_the_topic_of_its_place_in_the_flow() -> None:
    assert {lane: lane_inputs(lane) for lane in LANES} == {
        "items": (Topic.CATALOG_ITEMS,),
        "knowledge": (Topic.KNOWLEDGE_REQUESTS,),
        "knowledge-backlog": (Topic.KNOWLEDGE_BACKLOG,),
        "encode": (Topic.KNOWLEDGE,),
        "behaviour": (Topic.USER_BEHAVIOUR, Topic.LIVE_UPDATES),
    }


def test_the_lane_of_a_space_follows_the_compacted_topics() -> None:
    assert lane_inputs("encode.parts-pca-2") == (
        Topic.ENTITIES,
        Topic.REPRESENTATIONS,
        Topic.HISTORIES,
    )


@pytest.mark.parametrize("lane", ["", "nosuch", "encode.", "encode.Bad Name", "Items"])
def test_an_unknown_lane_is_a_configuration_error_that_names_the_known_ones(lane) -> None:
    with pytest.raises(ConfigurationError, match="knowledge-backlog"):
        lane_inputs(lane)


@pytest.mark.parametrize(
    ("group", "lane"),
    [
        ("p.freshet.encode.parts-pca-2", "encode.parts-pca-2"),
        ("p.freshet.encode", None),
        ("freshet.encode.other", None),
        ("p.someone-else", None),
    ],
)
def test_groups_of_space_lanes_are_recognised(group, lane) -> None:
    assert space_lane_of_group("p.", group) == lane
    assert lane is None or group_id("p.", lane) == group


def test_live_spaces_with_lanes_of_their_own_add_them_to_the_deployment() -> None:
    def record(name: str, state: SpaceState, writer: str) -> SpaceRecord:
        return SpaceRecord(
            space=SumAdaptor(name).space, state=state, writer=writer, changed_at_ms=1
        )

    lanes = deployed_lanes(
        [
            record("b", SpaceState.BACKFILLING, "encode.b"),
            record("a", SpaceState.ACTIVE, "encode.a"),
            record("old", SpaceState.RETIRING, "encode.old"),
            record("main", SpaceState.ACTIVE, "encode"),
        ]
    )

    assert lanes == (*LANES, "encode.a", "encode.b")
