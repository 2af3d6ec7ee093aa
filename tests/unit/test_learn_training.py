"""Training a LEARN space on a tiny catalogue: what is chosen, resumed, served and declared."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from schemas.errors import ConfigurationError
from tests.fakes.encoding import DIM, ENCODER_ID, PARTS
from tests.space_builders import RAW
from workers.adaptors.learn import LearnAdaptor
from workers.adaptors.raw import raw_adaptor
from workers.towers.learn_tower import LearnTower
from workers.training.held_out import (
    TAKEN_FOR_NEW,
    HeldOutFigures,
    hold_out,
    hold_out_items,
)
from workers.training.item_confidence import chosen_confidence, confidence_of_parts
from workers.training.learn_batches import BatchSizes
from workers.training.learn_options import LearnOptions
from workers.training.learn_trainer import LearnTrainer, item_vectors, user_vectors
from workers.training.reduced_parts import ComponentSizes, ReducedParts
from workers.training.train_learn import LearnData, train_learn, without_knowledge
from workers.training.user_sequences import UserSequences

ITEMS, USERS, KINDS = 60, 40, 4
OPTIONS = LearnOptions(
    width=16,
    heads=2,
    ffn=8,
    dim=12,
    history=10,
    centres=20,
    directions=4,
    epochs=4,
    learning_rate=3e-3,
    patience=4,
    sizes=BatchSizes(users=16, history=10, targets=10, positions=2, pairs=3),
    average=0.5,
)
CPU = torch.device("cpu")
KNOWLEDGE = np.array([False, False, True])


def catalogue(seed=1):
    """Items of four kinds, which their last part tells, some of them without it."""
    random = np.random.default_rng(seed)
    kinds = np.arange(ITEMS) % KINDS
    parts = random.standard_normal((ITEMS, len(PARTS), DIM)).astype(np.float32)
    parts[:, 2] = random.standard_normal((KINDS, DIM))[kinds] + parts[:, 2]
    mask = np.ones((ITEMS, len(PARTS)), np.bool_)
    mask[5, 2] = False
    parts /= np.linalg.norm(parts, axis=2, keepdims=True)
    return np.where(mask[:, :, None], parts, np.float32(0)).astype(np.float32), mask, kinds


def sequences(*, timed=False, seed=2):
    """Users each of one kind, who take to a dozen of its fifteen items."""
    random = np.random.default_rng(seed)
    users, items, times = [], [], []
    for user in range(USERS):
        own = random.permutation(np.arange(user % KINDS, ITEMS, KINDS))[:12]
        users += [f"u{user:02d}"] * len(own)
        items += own.tolist()
        times += (random.permutation(1_000)[: len(own)] + 1).tolist()
    return UserSequences.of(np.array(users), np.array(items), np.array(times) if timed else None)


def data(*, timed=False, refit=True, **changes):
    parts, mask, _ = catalogue()
    everything = sequences(timed=timed)
    parted = hold_out(everything, ITEMS, 0.2, 3, 10)
    whole = LearnData(
        parts=parts,
        mask=mask,
        knowledge_parts=KNOWLEDGE,
        raw=raw_adaptor(ENCODER_ID, PARTS, DIM, name=RAW).space,
        train=parted.train,
        held_out=parted.held_out,
        everything=everything if refit else None,
        hashes={"sha256_catalog": "c0ffee"},
    )
    return replace(whole, **changes)


def trained(given, options=OPTIONS, **more):
    return train_learn(given, options, name="learn-1", device=CPU, **more)


@pytest.fixture(scope="module")
def space():
    return trained(data())


@pytest.mark.parametrize("loss", ["full", "dense"])
def test_training_learns_what_users_take_to(loss):
    _, _, kinds = catalogue()
    given = data(refit=False)

    options = replace(
        OPTIONS,
        loss=loss,
        epochs=20,
        patience=20,
        learning_rate=1e-2,
        others_rate=1.0,
        dropout=0.0,
        part_dropout=0.0,
        knowledge_dropout=0.0,
    )

    result = trained(given, options)

    losses = [report.loss for report in result.epochs if report.loss is not None]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05
    vectors = result.adaptor.apply(given.parts, given.mask)
    alike = vectors @ vectors.T
    same = kinds[:, None] == kinds
    np.fill_diagonal(same, False)
    assert alike[same].mean() > alike[kinds[:, None] != kinds].mean() + 0.2


def test_without_a_rate_of_their_own_only_keys_and_gains_change():
    given = data()
    options = replace(OPTIONS, epochs=2)
    reduced = ReducedParts.of(
        given.parts, given.mask, given.train, ComponentSizes(16, 4, 20, 2.0, 1)
    )
    trainer = LearnTrainer(reduced, KNOWLEDGE, given.train, options, CPU)
    before = {name: value.clone() for name, value in trainer.averaged().state_dict().items()}

    trainer.epoch(0, lambda _done, _total: None)

    after = trainer.averaged().state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {
        "layers.0.key.weight",
        "layers.0.attention_norm.weight",
        "layers.0.ffn_norm.weight",
    }


def test_the_space_declares_what_it_was_made_of(space):
    declared = space.adaptor.space

    assert declared.adaptor_id == "learn"
    assert declared.fitted_on["raw_space"] == RAW
    assert declared.fitted_on["sha256_catalog"] == "c0ffee"
    assert declared.fitted_on["items"] == ITEMS
    assert declared.fitted_on["interactions"] == 12 * USERS
    assert declared.metric == "dot"
    assert set(declared.metrics) == {
        "held_out_recall@20",
        "held_out_ndcg@20",
        "confidence_without_knowledge",
    }


def test_an_item_reaches_less_far_the_more_of_its_knowledge_is_missing():
    parts = confidence_of_parts(np.array([False, True, True]), 0.64)
    np.testing.assert_allclose(parts, [1.0, 0.8, 0.8], rtol=1e-6)

    made = trained(data()).adaptor
    adaptor = replace(made, confidence=np.array([1.0, 0.8, 0.8], np.float32))
    items = np.ones((3, *made.network.mean.shape), np.float32)
    mask = np.array([[True, True, True], [True, True, False], [True, False, False]])

    lengths = np.linalg.norm(adaptor.apply(items, mask), axis=1)

    np.testing.assert_allclose(lengths, [1.0, 0.8, 0.64], rtol=1e-4)


class Weighed:
    """Something held out that is found best when items without knowledge count so much."""

    rows = np.zeros((1, 1), np.int64)

    def __init__(self, best):
        self._best = best

    def judge(self, users, items):
        shortest = np.linalg.norm(items, axis=1).min()
        return HeldOutFigures(1 - abs(shortest - self._best), 0.0)


@pytest.mark.parametrize("best", [1.0, 0.75, 0.3])
def test_the_confidence_is_the_one_with_which_most_is_found(best, monkeypatch):
    for name in ("user_vectors", "item_vectors"):
        unit = np.eye(1, 4, dtype=np.float32).repeat(ITEMS, axis=0)
        monkeypatch.setattr(
            f"workers.training.item_confidence.{name}", lambda *_args, unit=unit: unit
        )

    unused: Any = None
    held_out: Any = Weighed(best)
    assert chosen_confidence(unused, unused, held_out, np.array([False, True])) == best


def test_the_same_seed_gives_the_same_space_and_another_one_does_not(space):
    again = trained(data())
    other = trained(data(), replace(OPTIONS, seed=9))

    for name, tensor in space.adaptor.tensors().items():
        np.testing.assert_array_equal(again.adaptor.tensors()[name], tensor)
    assert again.adaptor.space == space.adaptor.space
    assert not np.array_equal(
        other.adaptor.tensors()["layers.0.key.weight"],
        space.adaptor.tensors()["layers.0.key.weight"],
    )


class Interrupted(Exception):
    """What stops a training in the middle of an epoch's report."""


@pytest.mark.parametrize("at", [0, 2, 3, 5])
def test_a_training_that_was_cut_short_ends_with_the_same_space(space, tmp_path, at):
    seen = []

    def stop(report):
        seen.append(report)

    def progress(what, done, total):
        if len(seen) > at:
            raise Interrupted

    checkpoint = tmp_path / "work" / "checkpoint.pt"
    try:
        trained(data(), checkpoint=checkpoint, on_epoch=stop, on_progress=progress)
        was_cut = False
    except Interrupted:
        was_cut = True
    resumed = trained(data(), checkpoint=checkpoint)

    assert was_cut == (at + 1 < len(space.epochs))
    assert resumed.epochs == space.epochs
    assert resumed.adaptor.space == space.adaptor.space
    for name, tensor in space.adaptor.tensors().items():
        np.testing.assert_array_equal(resumed.adaptor.tensors()[name], tensor)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    trained(data(), checkpoint=checkpoint)

    with pytest.raises(ConfigurationError, match="other data or options"):
        trained(data(), replace(OPTIONS, seed=8), checkpoint=checkpoint)
    given = data()
    fewer = replace(given.held_out, rows=given.held_out.rows[:, :1])
    with pytest.raises(ConfigurationError, match="other data or options"):
        trained(replace(given, held_out=fewer), checkpoint=checkpoint)


def test_training_stops_when_it_gets_no_better():
    result = trained(data(refit=False), replace(OPTIONS, epochs=30, patience=1, learning_rate=0.3))

    best = max(range(len(result.epochs)), key=lambda n: sum(result.epochs[n].figures))
    assert result.epochs[-1].epochs == best + 2 < 30


def test_the_final_network_has_seen_everything_for_as_many_epochs_as_were_best(space):
    judged = [report for report in space.epochs if report.figures is not None]
    best = max(range(len(judged)), key=lambda n: sum(judged[n].figures))

    assert [report.epochs for report in space.epochs if report.stage == "final"] == list(
        range(best + 1)
    )
    assert space.adaptor.space.fitted_on["epochs"] == best


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_served_is_what_was_judged(layers, monkeypatch):
    kept = {}

    def keeping(model, reduced):
        kept["items"] = item_vectors(model, reduced)
        kept["users"] = user_vectors(model, reduced, given.held_out.rows)
        return kept["items"]

    given = data(refit=False)
    monkeypatch.setattr("workers.training.train_learn.item_vectors", keeping)
    adaptor = trained(given, replace(OPTIONS, layers=layers)).adaptor
    tower = LearnTower(adaptor)
    rows = given.held_out.rows

    served = adaptor.apply(given.parts, given.mask)
    raw = np.where(given.mask[:, :, None], given.parts, 0).reshape(ITEMS, -1)
    times = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    users, made = tower.apply(tower.prepare(raw), rows, np.ones(rows.shape, np.float32), times)

    assert made.all()
    reach = np.where(given.mask, 1, adaptor.confidence).prod(axis=1, keepdims=True)
    np.testing.assert_allclose(served, kept["items"] * reach, atol=1e-4)
    np.testing.assert_allclose(users, kept["users"], atol=1e-4)


def test_held_out_items_are_in_no_history_and_no_training():
    everything = sequences()

    train, held_out = hold_out(everything, ITEMS, 0.2, 3, 10)

    assert len(held_out.candidates) == ITEMS * 0.2
    assert not np.isin(train.items, held_out.candidates).any()
    assert not np.isin(held_out.rows, held_out.candidates).any()


def test_with_times_new_items_of_the_last_stretch_are_held_out():
    timed = sequences(timed=True)
    assert timed.at_ms is not None
    cut = timed.quantile(0.8)
    # The first item is met in the last stretch only.
    late = (timed.items != 0) | (timed.at_ms > cut)
    users = np.repeat(timed.users, np.diff(timed.starts))
    everything = UserSequences.of(users[late], timed.items[late], timed.at_ms[late])
    cut = everything.quantile(0.8)

    train, held_out = hold_out(everything, ITEMS, 0.2, 3, 10)

    assert train.at_ms is not None
    assert train.at_ms.max() <= cut
    assert not np.isin(train.items, held_out.candidates).any()
    assert not np.isin(held_out.rows, held_out.candidates).any()
    assert 0 in held_out.candidates
    assert len(held_out.candidates) == 1 + round((ITEMS - 1) * TAKEN_FOR_NEW)
    found = np.bincount(held_out.candidates[held_out.positives.candidates], minlength=ITEMS)
    later = np.bincount(everything.after(cut).items, minlength=ITEMS)
    assert found.sum() > 0
    assert (found <= later).all()


def test_a_file_may_say_what_to_find():
    everything = sequences()
    out = np.zeros(ITEMS, np.bool_)
    out[[0, 1, 2, 3]] = True
    asked = UserSequences.of(np.array(["u00", "u01", "stranger"]), np.array([0, 1, 2]), None)

    train, held_out = hold_out_items(
        everything.without_items(out), asked, np.unique(asked.items), ITEMS, 10
    )

    assert held_out.candidates.tolist() == [0, 1, 2]
    assert len(held_out.rows) == 2
    assert len(train.items) == out[everything.items].size - out[everything.items].sum()


def test_nothing_to_find_is_refused():
    everything = sequences()
    stranger = UserSequences.of(np.array(["stranger"]), np.array([0]), None)

    with pytest.raises(ConfigurationError, match="something to find"):
        hold_out_items(everything, stranger, np.array([0]), ITEMS, 10)


def test_knowledge_can_be_left_out():
    given = without_knowledge(data())

    assert not given.mask[:, 2].any()
    assert not given.parts[:, 2].any()
    assert given.mask[:, :2].all()


def test_a_network_can_be_linear_in_the_parts():
    given = data(refit=False)

    adaptor = trained(given, replace(OPTIONS, centres=0, directions=4)).adaptor

    assert isinstance(adaptor, LearnAdaptor)
    assert "centres" not in adaptor.tensors()
