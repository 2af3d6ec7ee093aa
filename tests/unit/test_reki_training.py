"""Training REKI: the ranker, what it may know of a sample, and the course of a training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.errors import ConfigurationError
from schemas.fingerprints import Json
from tests.fakes.encoding import DIM, HashEncoder
from tests.history_builders import DAY_MS, START_MS
from workers.adaptors.hein_forward import reduced
from workers.adaptors.hein_shape import HeinShape
from workers.adaptors.raw import raw_adaptor
from workers.adaptors.space_files import load_space, save_space
from workers.encoding.parity import Golden
from workers.training.din import UNKNOWN, Din, DinBatch, DinShape
from workers.training.item_attributes import item_attributes
from workers.training.reki_data import Items, RekiData
from workers.training.reki_options import RekiOptions
from workers.training.timed_samples import TimedSamples
from workers.training.train_reki import TrainedReki, reki_space, train_reki

CPU = torch.device("cpu")
PARTS = ("title", "mood")
OPTIONS = RekiOptions(
    components=6,
    shared=1,
    dedicated=1,
    attributes=("genres",),
    history=5,
    embedding=4,
    attention=(8, 4),
    layers=(16, 8),
    dropout=0.0,
    epochs=4,
    batch=128,
    learning_rate=1e-2,
    test_share=0.2,
)

# ---- the ranker -------------------------------------------------------------------------------


def din(features: int = 0, id_dropout: float = 0.0) -> Din:
    torch.manual_seed(0)
    shape = DinShape(
        ids=5, attributes=(4,), levels=3, features=features, embedding=4, dropout=0.0,
        id_dropout=id_dropout,
    )  # fmt: skip
    attributes = torch.tensor([[[1, 2]], [[3, 0]], [[0, 0]], [[2, 0]]])
    return Din(shape, torch.tensor([1, 2, 3, 4]), attributes).eval()


def batch(history: list[list[int]], levels: list[list[int]]) -> DinBatch:
    items = torch.arange(len(history)) % 4
    return DinBatch(items, torch.tensor(history), torch.tensor(levels))


def test_padding_of_a_history_does_not_count():
    ranker = din()

    short = ranker(batch([[1]], [[2]]))
    padded = ranker(batch([[1, 3, 2]], [[2, 0, 0]]))

    torch.testing.assert_close(short, padded)


def test_a_user_without_a_history_has_a_score():
    scores = din()(batch([[0, 0], [1, 0]], [[0, 0], [1, 0]]))

    assert torch.isfinite(scores).all()


def test_what_was_done_and_what_it_was_worth_matter():
    ranker = din()
    plain = ranker(batch([[1, 2]], [[1, 1]]))

    assert not torch.equal(plain, ranker(batch([[3, 2]], [[1, 1]])))
    assert not torch.equal(plain, ranker(batch([[1, 2]], [[3, 1]])))


def test_candidates_of_a_batch_do_not_see_each_other():
    ranker = din()
    together = ranker(batch([[1, 2], [3, 0]], [[1, 2], [3, 0]]))

    torch.testing.assert_close(together[:1], ranker(batch([[1, 2]], [[1, 2]])))


def test_the_ranker_takes_the_features_it_was_made_for_and_no_others():
    one = batch([[1]], [[1]])
    ranker = din(features=2)

    assert not torch.equal(ranker(one, torch.zeros(1, 2)), ranker(one, torch.ones(1, 2)))
    with pytest.raises(ValueError, match="made for 2 features"):
        ranker(one)
    with pytest.raises(ValueError, match="made for 0 features"):
        din()(one, torch.zeros(1, 2))


def test_training_takes_ids_for_unknown():
    ranker = din(id_dropout=1.0).train()

    ranker(batch([[1, 2]], [[1, 1]])).sum().backward()

    learned = ranker.of_ids.weight.grad
    assert learned is not None
    assert learned[UNKNOWN].any()
    assert not learned[1:].any()


def test_only_what_training_met_often_enough_has_a_number():
    fields: list[dict[str, Json]] = [
        {"genres": ["a", "b"], "year": 1990},
        {"genres": ["b"]},
        {"genres": ["c"], "year": 1},
    ]

    found = item_attributes(fields, ("genres", "year"), np.array([3, 1, 0]), 2)

    assert found.ids.tolist() == [1, 0, 0]
    assert found.values[:, 0, :2].tolist() == [[1, 2], [2, 0], [0, 0]]
    assert found.values[:, 1, 0].tolist() == [1, 0, 0]
    assert (found.id_count, found.value_counts) == (2, (3, 2))


# ---- what a sample may know -------------------------------------------------------------------


def shop(count: int = 1_500, seed: int = 0, *, windows: int = 1) -> tuple[Items, TimedSamples]:
    """Users who like what one hidden direction of the second part points at, and say so.

    With several `windows` in time each has items of its own.
    """
    random = np.random.default_rng(seed)
    parts = random.standard_normal((60, 2, DIM)).astype(np.float32)
    mask = np.ones((60, 2), np.bool_)
    mask[7, 1] = False
    parts[7, 1] = 0
    items = Items(
        parts,
        mask,
        [{"genres": [f"g{n % 3}"]} for n in range(60)],
        PARTS,
        np.array([False, True]),
    )
    window = np.arange(count) * windows // count
    rows = (random.integers(0, 60 // windows, count) + window * (60 // windows)).astype(np.int64)
    liked = parts[rows, 1, 0] + 0.3 * random.standard_normal(count) > 0
    samples = TimedSamples.of(
        random.integers(0, 200, count).astype(str),
        rows,
        np.where(liked, 9.0, 3.0).astype(np.float32),
        START_MS + np.arange(count) * DAY_MS // 20,
    )
    return items, samples


def weight_of(value: float) -> float:
    return (value - 4.5) / 5.5


def data_of(items: Items, samples: TimedSamples, options: RekiOptions = OPTIONS) -> RekiData:
    return RekiData.of(items, samples, weight_of, 30 * DAY_MS, options)


def test_nothing_that_happens_at_or_after_a_sample_changes_what_is_told_of_its_user():
    items, samples = shop()
    data = data_of(items, samples)
    rows = data.split.valid[:50]
    known = data.told(rows, 200, np.zeros(50, np.bool_)).tastes

    for place, row in enumerate(rows.tolist()):
        from_then = samples.at_ms >= samples.at_ms[row]
        turned = replace(
            data,
            weights=np.where(from_then, -data.weights, data.weights),
            samples=replace(samples, items=np.where(from_then, 59 - samples.items, samples.items)),
        )
        again = turned.told(rows[[place]], 200, np.zeros(1, np.bool_)).tastes
        for before, after in zip(known, again, strict=True):
            np.testing.assert_array_equal(before[place], after[0])


def test_what_happens_after_the_training_samples_changes_nothing_that_is_fitted():
    items, samples = shop()
    data = data_of(items, samples)
    later = samples.at_ms >= data.split.valid_from_ms
    other = replace(
        samples,
        items=np.where(later, 0, samples.items),
        values=np.where(later, np.float32(0), samples.values),
    )

    again = data_of(items, other)

    np.testing.assert_array_equal(data.projection, again.projection)
    np.testing.assert_array_equal(data.mean, again.mean)
    np.testing.assert_array_equal(data.attributes.ids, again.attributes.ids)
    np.testing.assert_array_equal(data.attributes.values, again.attributes.values)
    np.testing.assert_array_equal(data.levels[~later], again.levels[~later])


def test_a_user_is_told_as_the_tower_of_the_space_will_tell_it():
    items, samples = shop()
    data = data_of(items, samples)
    row = int(data.split.test[-1])
    history = samples.history(np.array([row]), 200)[0]

    tastes = data.told(np.array([row]), 200, np.zeros(1, np.bool_)).tastes

    liked = history[data.weights[history] > 0]
    age = (samples.at_ms[history].max() - samples.at_ms[liked]) / (30 * DAY_MS)
    shares = data.weights[liked] * np.exp2(-age)
    expected = shares @ data.inputs[samples.items[liked]] / shares.sum()
    np.testing.assert_allclose(tastes.liked[0], expected, atol=1e-5)


def test_an_item_may_be_told_without_its_knowledge():
    items, samples = shop()
    data = data_of(items, samples)
    rows = np.flatnonzero(samples.items != 7)[:20]

    full, bare = (data.told(rows, 5, np.full(20, without)).items for without in (False, True))

    only_content = items._replace(mask=items.mask & ~items.knowledge_parts)
    told_less = reduced(only_content.parts, only_content.mask, data.mean, data.projection)
    np.testing.assert_allclose(bare, told_less[samples.items[rows]], atol=1e-6)
    assert not np.isclose(full, bare).all(axis=1).any()


def test_some_items_of_histories_are_told_without_their_knowledge():
    items, samples = shop()
    data, rows = data_of(items, samples), np.arange(len(samples))
    has = np.zeros(len(rows), np.bool_)

    plain, fewer, none = (data.told(rows, 5, has, share).tastes.liked for share in (0, 0.2, 1))

    assert 0.1 < (~np.isclose(plain, fewer).all(axis=1)).mean() < 0.7
    assert not np.allclose(fewer, none)


@pytest.mark.parametrize("knowledge", ["content", "shuffled", "random"])
def test_what_is_compared_with_differs_and_has_the_same_shape(knowledge):
    items, samples = shop()

    own = data_of(items, samples)
    other = data_of(items, samples, replace(OPTIONS, knowledge=knowledge))

    assert other.inputs.shape == own.inputs.shape
    assert not np.allclose(other.inputs[:60], own.inputs[:60])
    np.testing.assert_allclose(np.linalg.norm(other.inputs[:60], axis=1), 1, rtol=1e-4)


def test_samples_that_cannot_teach_are_refused():
    items, samples = shop()

    with pytest.raises(ConfigurationError, match="without a rating"):
        data_of(items, replace(samples, values=np.full_like(samples.values, np.nan)))
    with pytest.raises(ConfigurationError, match="tells no samples from the others"):
        data_of(items, samples, replace(OPTIONS, liked_from=2.0))


# ---- the course of a training -----------------------------------------------------------------


def trained(options: RekiOptions = OPTIONS, checkpoint: Path | None = None) -> TrainedReki:
    items, samples = shop()
    return train_reki(data_of(items, samples, options), options, CPU, checkpoint=checkpoint)


def test_knowledge_helps_where_it_says_what_is_liked():
    without = trained(replace(OPTIONS, knowledge="none", least_seen=1_000)).test_auc
    with_knowledge = trained(replace(OPTIONS, least_seen=1_000, epochs=8)).test_auc

    assert without is not None
    assert with_knowledge is not None
    assert with_knowledge > without + 0.1


def test_the_same_seed_gives_the_same_network():
    first, again = trained(), trained()

    assert first.epochs == again.epochs
    for name, tensor in first.arrays.items():
        np.testing.assert_array_equal(tensor, again.arrays[name])
    assert trained(replace(OPTIONS, seed=2)).epochs != first.epochs


def test_a_training_that_was_interrupted_ends_where_another_one_ends(tmp_path: Path):
    items, samples = shop()
    data, file = data_of(items, samples), tmp_path / "reki.checkpoint"

    class Interrupted(Exception):
        pass

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "epoch 3" and done == total:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_reki(data, OPTIONS, CPU, checkpoint=file, progress=interrupt)
    resumed = train_reki(data, OPTIONS, CPU, checkpoint=file)

    whole = train_reki(data, OPTIONS, CPU)
    assert resumed.epochs == whole.epochs
    for name, tensor in whole.arrays.items():
        np.testing.assert_array_equal(tensor, resumed.arrays[name])


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path):
    file = tmp_path / "reki.checkpoint"
    trained(replace(OPTIONS, epochs=1), file)

    with pytest.raises(ConfigurationError, match="training with other data or options"):
        trained(replace(OPTIONS, epochs=1, seed=9), file)


def test_it_stops_when_validation_gets_no_better():
    stubborn = trained(replace(OPTIONS, epochs=30, patience=1, learning_rate=0.3))

    assert len(stubborn.epochs) == stubborn.best + 2
    assert stubborn.valid_auc == max(epoch.valid_auc for epoch in stubborn.epochs)


def test_a_trained_network_is_served_as_a_space(tmp_path: Path):
    items, samples = shop()
    data = data_of(items, samples)
    made = train_reki(data, OPTIONS, CPU)
    raw = raw_adaptor("hash-encoder", PARTS, DIM, name="raw").space

    adaptor = reki_space(made, data, raw, name="reki", provenance={"ratings": "digest"})
    save_space(tmp_path, adaptor, Golden.record(HashEncoder(), ("golden",)))
    loaded = load_space(tmp_path, "reki")

    assert (loaded.space.metric, loaded.space.dim) == ("dot", 96)
    assert loaded.space.fitted_on["ratings"] == "digest"
    assert loaded.space.metrics["valid_auc"] == pytest.approx(made.valid_auc, abs=1e-4)
    assert loaded.space.metrics["test_auc"] == pytest.approx(made.test_auc, abs=1e-4)
    assert HeinShape.of(loaded.space) == made.shape
    vectors = loaded.adaptor.apply(items.parts, items.mask)
    np.testing.assert_allclose(vectors, adaptor.apply(items.parts, items.mask), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_a_gpu():
    items, samples = shop()

    made = train_reki(data_of(items, samples), OPTIONS, torch.device("cuda"))

    assert made.valid_auc > 0.5
