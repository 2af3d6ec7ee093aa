"""A writer of the backlog whose calls make way."""

import pytest

from schemas.knowledge import KnowledgeRequest
from streams.giving_way import GaveWay, GivingWayWriter
from tests.fakes.version_writer import VersionWriter
from tests.lane_builders import movies, request
from workers.knowledge.prompts import item_prompt
from workers.knowledge.writer import Answer


class Way:
    """A WayPort: calls must go while it is `closed`; `stays` is whether each one might have not."""

    def __init__(self) -> None:
        self.closed = False
        self.stays: list[bool] = []

    async def through(self, call, *, may_stay):
        self.stays.append(may_stay)
        if self.closed:
            call.close()
            raise GaveWay
        return await call


async def test_whoever_went_once_may_stay_until_it_is_answered():
    way = Way()
    writer = GivingWayWriter(VersionWriter(), way)

    async def write(wish: KnowledgeRequest) -> Answer:
        prompt = item_prompt(movies(), wish.entity, wish.fields)
        return await writer.write(prompt, wish, priority=3)

    way.closed = True
    for wish in (request(1), request(1)):
        with pytest.raises(GaveWay):
            await write(wish)
    way.closed = False
    for wish in (request(1, id_="7"), request(1), request(2)):
        assert (await write(wish)).factors

    assert way.stays == [False, True, False, True, False]
