"""Who asks a server what it serves, and how often."""

import asyncio

import pytest

from schemas.errors import Transient
from workers.knowledge.served_model import ServedModel


class Look:
    """Finds `served` or fails with `trouble`, once `open` is set."""

    def __init__(self, *served: str) -> None:
        self.served = served
        self.trouble: Transient | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.count = 0

    async def __call__(self) -> tuple[str, ...]:
        self.count += 1
        await self.open.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.served


async def test_an_agreement_is_believed_until_it_is_doubted():
    look = Look("other", "declared")
    model = ServedModel(look, "declared")

    await model.require()
    await model.require()
    assert look.count == 1

    model.doubt()
    await model.require()
    assert look.count == 2


async def test_a_disagreement_is_looked_at_again_each_time():
    look = Look("other")
    model = ServedModel(look, "declared")

    for _ in range(2):
        with pytest.raises(Transient, match="serves other, declared is declared"):
            await model.require()
    look.served = ("declared",)
    await model.require()

    assert look.count == 3


async def test_all_who_ask_meanwhile_share_what_one_look_finds():
    look = Look()
    look.trouble = Transient("vllm", "gone", retry_after_seconds=2.0)
    look.open.clear()
    model = ServedModel(look, "declared")
    asking = [asyncio.create_task(model.require()) for _ in range(5)]
    await asyncio.sleep(0)
    look.open.set()

    errors = await asyncio.gather(*asking, return_exceptions=True)

    assert [str(error) for error in errors] == ["vllm: gone"] * 5
    assert {getattr(error, "retry_after_seconds", None) for error in errors} == {2.0}
    assert look.count == 1


async def test_a_look_that_is_given_up_leaves_the_others_to_look_themselves():
    look = Look("declared")
    look.open.clear()
    model = ServedModel(look, "declared")
    impatient, patient = (asyncio.create_task(model.require()) for _ in range(2))
    await asyncio.sleep(0)

    impatient.cancel()
    look.open.set()
    await patient

    assert look.count == 2
