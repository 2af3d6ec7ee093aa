"""REKI's network: as published, the same in torch and numpy, and as a space that serves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError
from schemas.vector_record import VectorRecord
from streams.lanes.user_vectors import UserVectors
from streams.lanes.vectors import VectorSource, space_records
from tests.behaviour_builders import SIGNIFICANCE
from tests.fakes.clock import FakeClock
from tests.fakes.encoding import HashEncoder, representer
from tests.fakes.histories import InMemoryAwaited, StoredItemVectors
from tests.fakes.inline_executor import InlineExecutor
from tests.fakes.stores import InMemoryEntityStore
from tests.history_builders import DAY_MS, START_MS, event, history_of, user
from tests.live_builders import vector
from tests.reki_builders import (
    RULE,
    SHAPE,
    catalogue,
    knowledge_towers,
    reki_adaptor,
    reki_declaration,
    reki_tensors,
)
from tests.space_builders import films
from workers.adaptors.hein import HeinAdaptor
from workers.adaptors.hein_shape import DISLIKED, LIKED, HeinShape
from workers.adaptors.space_files import load_space, save_space
from workers.encoding.parity import Golden
from workers.towers.hein_tower import HeinTower
from workers.towers.load_towers import TowerOptions, tower_of
from workers.towers.two_tastes import TasteRule, two_tastes
from workers.towers.user_tower import PADDING
from workers.training.hein_model import Hein

# ---- the network as published -----------------------------------------------------------------


def network(towers: int = 2, width: int = 24) -> Hein:
    torch.manual_seed(0)
    return Hein(HeinShape(width, towers))


def inputs(towers: int = 2, width: int = 24, count: int = 5) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(count, width, requires_grad=True) for _ in range(towers)]


def test_it_has_the_published_number_of_parameters():
    hein = network(towers=2, width=768)

    assert sum(parameter.numel() for parameter in hein.parameters()) == 1_241_486


def test_towers_say_32_values_each_side_by_side():
    hein, told = network(), inputs()

    said = hein(told)

    assert said.shape == (5, 64)
    assert torch.equal(said[:, 32:], hein.tower(1, told[1]))


def test_gates_sum_to_one_over_shared_and_own_experts():
    weights = network().gate(0, inputs()[0])

    assert weights.shape == (5, 7)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))


def test_a_tower_hears_nothing_of_the_other_inputs():
    hein, told = network(towers=3), inputs(towers=3)
    said = hein(told)

    silenced = hein([told[0], torch.zeros_like(told[1]), told[2]])

    assert torch.equal(silenced[:, :32], said[:, :32])
    assert torch.equal(silenced[:, 64:], said[:, 64:])
    assert not torch.equal(silenced[:, 32:64], said[:, 32:64])


@pytest.mark.parametrize("tower", [0, 1, 2])
def test_every_tower_teaches_the_shared_experts_and_no_other_towers_own(tower: int):
    hein, told = network(towers=3), inputs(towers=3)

    hein(told)[:, 32 * tower : 32 * (tower + 1)].sum().backward()

    assert all((one.grad is not None and one.grad.any()) for one in hein.shared.parameters())
    for other, experts in enumerate(hein.dedicated):
        learned = [one.grad is not None and bool(one.grad.any()) for one in experts.parameters()]
        assert any(learned) is (other == tower)


def test_experts_end_in_a_relu():
    assert (network()(inputs()) >= 0).all()


# ---- missing knowledge ------------------------------------------------------------------------


def told(count: int = 6) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(2)
    known = [torch.ones(count, dtype=torch.bool) for _ in range(3)]
    return [torch.randn(count, SHAPE.width) for _ in range(3)], known


def test_what_is_unknown_is_said_of_the_learned_input_whatever_stands_there():
    towers = knowledge_towers().eval()
    rows, known = told()
    known[1][:2] = False
    rows[1][0] = torch.nan

    said = towers(rows, known)[:, SHAPE.block(DISLIKED)]

    expected = towers.hein.tower(DISLIKED, towers.unknown[DISLIKED][None])[0]
    torch.testing.assert_close(said[0], expected)
    torch.testing.assert_close(said[1], expected)
    assert not torch.allclose(said[2], expected)


def test_training_takes_a_share_of_what_is_known_for_unknown():
    towers = knowledge_towers(knowledge_dropout=0.5)
    rows, known = told(400)

    said = towers.train()(rows, known)[:, SHAPE.block(LIKED)]

    unknown = towers.hein.tower(LIKED, towers.unknown[LIKED][None])[0]
    share = float(torch.isclose(said, unknown).all(dim=1).float().mean())
    assert 0.4 < share < 0.6
    assert (
        not torch.isclose(towers.eval()(rows, known), towers.eval()(rows, known))
        .logical_not()
        .any()
    )


def test_the_learned_input_is_learned():
    towers = knowledge_towers()
    rows, known = told()
    known[0][0] = False

    towers.eval()(rows, known).sum().backward()

    assert towers.unknown.grad is not None
    assert towers.unknown.grad[LIKED].any()


# ---- the same in numpy ------------------------------------------------------------------------


def test_numpy_says_what_torch_says():
    towers = knowledge_towers(seed=5).eval()
    served = reki_adaptor(towers).network
    rows, known = told(50)

    for tower in range(3):
        with torch.no_grad():
            expected = towers.hein.tower(tower, rows[tower]).numpy()
        np.testing.assert_allclose(served.say(tower, rows[tower].numpy()), expected, atol=1e-5)
    with torch.no_grad():
        unknown = towers(rows, [~one for one in known])[0].numpy()
    np.testing.assert_allclose(served.say_of_nothing(), unknown, atol=1e-5)


def test_an_items_vector_fills_the_last_block_alone():
    adaptor = reki_adaptor()
    parts, mask = catalogue(9)

    vectors = adaptor.apply(parts, mask)

    assert vectors.shape == (9, 12)
    assert vectors.dtype == np.float32
    assert not vectors[:, :8].any()
    assert vectors[:, 8:].any(axis=1).all()


def test_an_item_of_which_nothing_is_known_has_the_default():
    adaptor = reki_adaptor()
    parts, mask = catalogue(9)

    unknown = adaptor.apply(parts, mask)[-1]

    np.testing.assert_allclose(unknown[8:], adaptor.default[8:], atol=1e-6)


def test_a_batch_of_one_is_a_batch_of_many():
    adaptor = reki_adaptor()
    parts, mask = catalogue(40)
    together = adaptor.apply(parts, mask)

    alone = np.concatenate([adaptor.apply(parts[[n]], mask[[n]]) for n in range(40)])

    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_what_stands_in_a_missing_part_does_not_count():
    adaptor = reki_adaptor()
    parts, mask = catalogue(9)
    other = parts.copy()
    other[0, -1] = 99.0

    np.testing.assert_array_equal(adaptor.apply(other, mask), adaptor.apply(parts, mask))


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"dim": 9}, "dim is 9, that of 3 towers 12"),
        ({"fitted_on": {}}, "fitted_on.width is None"),
    ],
)
def test_a_declaration_that_fits_no_network_is_refused(spoiled: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        HeinAdaptor.from_tensors(reki_declaration(**spoiled), reki_tensors())


def test_tensors_that_fit_no_network_are_refused():
    tensors = reki_tensors()
    del tensors["gates.1.bias"]

    with pytest.raises(ConfigurationError, match=r"gates\.1\.bias is missing"):
        HeinAdaptor.from_tensors(reki_declaration(), tensors)


# ---- user vectors -----------------------------------------------------------------------------


def tower(directory: Path) -> HeinTower:
    save_space(directory, reki_adaptor(), Golden.record(HashEncoder(), ("golden",)))
    made = tower_of(load_space(directory, "reki").space, TowerOptions(DAY_MS, spaces_dir=directory))
    assert isinstance(made, HeinTower)
    return made


def apply(tower: HeinTower, rows: Any, weights: Any, days: Any, items: Any) -> tuple[Any, Any]:
    at_ms = START_MS + np.array(days, np.int64) * DAY_MS
    return tower.apply(
        tower.prepare(items), np.array(rows, np.int64), np.array(weights, np.float32), at_ms
    )


def test_a_space_is_read_back_with_its_tower(tmp_path: Path):
    made = tower(tmp_path)

    assert made.space == reki_adaptor().space
    assert made.rule == RULE
    assert made.input_space.name == "raw"
    assert made.input_space.dim == 24


def test_a_users_vector_is_what_the_network_says_of_the_two_means(tmp_path: Path):
    made, (parts, mask) = tower(tmp_path), catalogue(6)
    items, inputs = parts.reshape(6, -1), made.adaptor.network.inputs(*catalogue(6))

    vectors, there = apply(made, [[0, 1, 2]], [[1.0, 0.5, 0.2]], [[30, 0, 30]], items)

    liked = (1.0 * inputs[0] + 0.25 * inputs[1]) / 1.25
    said = made.adaptor.network.say(LIKED, liked[None])[0]
    assert there.all()
    np.testing.assert_allclose(vectors[0, :4], said, atol=1e-5)
    np.testing.assert_allclose(
        vectors[0, 4:8], made.adaptor.network.say(DISLIKED, inputs[[2]])[0], atol=1e-5
    )
    assert not vectors[0, 8:].any()
    assert mask[2].all()


def test_who_liked_nothing_has_the_learned_default_for_it(tmp_path: Path):
    made, (parts, _) = tower(tmp_path), catalogue(6)

    vectors, there = apply(made, [[1]], [[-1.0]], [[0]], parts.reshape(6, -1))

    assert there.all()
    np.testing.assert_allclose(vectors[0, :4], made.adaptor.default[:4], atol=1e-5)
    assert not np.allclose(vectors[0, 4:8], made.adaptor.default[4:8])


def test_a_history_of_items_without_text_makes_no_vector(tmp_path: Path):
    made, (parts, _) = tower(tmp_path), catalogue(6)

    vectors, there = apply(
        made, [[5, PADDING], [5, 1]], [[1, 1], [1, 1]], [[0, 0]] * 2, parts.reshape(6, -1)
    )

    assert there.tolist() == [False, True]
    assert not vectors[0].any()


def test_users_of_a_batch_do_not_see_each_other(tmp_path: Path):
    made, (parts, _) = tower(tmp_path), catalogue(30)
    random = np.random.default_rng(4)
    rows = random.integers(-1, 30, (20, 12))
    weights = random.uniform(-1, 1, rows.shape)
    days = random.integers(0, 90, rows.shape)

    together, there = apply(made, rows, weights, days, parts.reshape(30, -1))

    for n in range(20):
        (alone,), (alone_there,) = apply(
            made, rows[[n]], weights[[n]], days[[n]], parts.reshape(30, -1)
        )
        assert there[n] == alone_there
        np.testing.assert_allclose(alone, together[n], atol=1e-5)


def test_means_are_the_same_however_many_users_are_computed_at_once(monkeypatch):
    random = np.random.default_rng(6)
    items = random.standard_normal((50, 5)).astype(np.float32)
    rows = random.integers(-1, 50, (40, 20))
    weights = random.uniform(-1, 1, rows.shape).astype(np.float32)
    at_ms = START_MS + random.integers(0, 90, rows.shape) * DAY_MS
    together = two_tastes(items, rows, weights, at_ms, RULE)

    monkeypatch.setattr("workers.towers.two_tastes._EVENTS_AT_ONCE", 1)

    few = two_tastes(items, rows, weights, at_ms, RULE)
    np.testing.assert_allclose(few.liked, together.liked, atol=1e-6)
    np.testing.assert_allclose(few.cold, together.cold, atol=1e-6)
    np.testing.assert_array_equal(few.has_cold, together.has_cold)


def test_a_rule_of_likes_has_to_be_one():
    with pytest.raises(ConfigurationError, match="liked_from 0"):
        TasteRule(1, 0)
    with pytest.raises(ConfigurationError, match="lacks the rule of likes"):
        TasteRule.of("reki", {"half_life_ms": 1})


# ---- through the lanes' own machinery ---------------------------------------------------------


def test_the_encode_lane_makes_item_vectors_and_leaves_users_to_histories():
    adaptor, documents = reki_adaptor(), films(4)
    maker = representer(HashEncoder())
    rows = [(None, None, maker.texts(document)) for document in documents.values()]
    parts, mask, _ = maker.represent(rows)
    sources = [
        VectorSource(key, document, 1, START_MS)
        for key, document in {**documents, user("7"): next(iter(documents.values()))}.items()
    ]

    records = space_records(
        sources, np.concatenate([parts, parts[:1]]), np.concatenate([mask, mask[:1]]), [adaptor]
    )

    assert records[-1] == {}
    stored = VectorRecord.decode(records[0]["reki"])
    assert stored.header.dim == 12
    np.testing.assert_allclose(stored.vector, adaptor.apply(parts, mask)[0], atol=2e-3)


class _Towers:
    def __init__(self, *towers: HeinTower) -> None:
        self.made = towers

    def towers(self) -> tuple[HeinTower, ...]:
        return self.made


async def test_the_behaviour_lane_makes_user_vectors(tmp_path: Path):
    made, store = tower(tmp_path), InMemoryEntityStore()
    parts, _ = catalogue(3)
    for n in range(2):
        store.vectors["raw", EntityKey.item(str(n))] = vector(1, parts[n].ravel())
    vectors = UserVectors(
        towers=_Towers(made),
        items=StoredItemVectors(store),
        awaited=InMemoryAwaited(),
        store=store,
        significance=SIGNIFICANCE,
        clock=FakeClock(now_ms=START_MS),
        executor=InlineExecutor(),
        ttl_ms=DAY_MS,
    )
    liked_and_not = history_of(
        event(0, item="0", action="like"), event(1, item="1", action="dislike")
    )

    await vectors.put({user("7"): liked_and_not})

    stored = VectorRecord.decode(store.vectors["reki", user("7")])
    expected, _ = apply(made, [[0, 1]], [[1.0, -1.0]], [[0, 0]], parts.reshape(3, -1))
    np.testing.assert_allclose(stored.vector, expected[0], atol=5e-3)
