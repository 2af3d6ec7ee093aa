"""What features are worth: gains seed by seed, with intervals over users, by bucket."""

from dataclasses import replace

import numpy as np
import orjson
import pytest
import torch

from tests.unit.test_reki_training import OPTIONS, data_of, shop
from workers.evaluation.ranking import auc
from workers.training.reki_comparison import ARMS, WITHOUT, compare, gain_interval


def test_a_gain_is_told_from_what_only_looks_like_one():
    # Items of its own in every tenth of the time: those of the test are new to the ranker.
    items, samples = shop(3_000, windows=10)
    options = replace(OPTIONS, epochs=6, components=16)

    found = compare(
        lambda own: data_of(items, samples, own),
        options,
        ["reki", "random"],
        2,
        torch.device("cpu"),
    )

    reki, random = found["reki"], found["random"]
    assert list(found) == [WITHOUT, "reki", "random"]
    assert found[WITHOUT].gain == 0
    assert reki.gain > 0.1
    assert reki.by_user.low > 0
    assert random.gain < reki.gain / 2
    assert reki.relative == pytest.approx(reki.gain / found[WITHOUT].auc)
    assert len(reki.aucs) == len(reki.valid_aucs) == 2
    assert {"new items", "tail users"} <= reki.by_bucket.keys()
    written = orjson.loads(orjson.dumps(reki.to_json()))
    assert written["auc"] == pytest.approx(reki.auc)
    assert written["by_user"] == [reki.by_user.low, reki.by_user.high]


def test_every_arm_changes_something():
    assert all((replace(OPTIONS, **ARMS[name]) == OPTIONS) is (name == "reki") for name in ARMS)


def test_the_interval_holds_the_gain_and_narrows_with_more_users():
    random = np.random.default_rng(0)
    liked = random.random(4_000) < 0.5
    base = random.standard_normal(4_000).astype(np.float32)
    own = (base + liked / 2).astype(np.float32)
    users = random.integers(0, 800, 4_000).astype(str)
    gain = auc(own, liked) - auc(base, liked)

    low, high = gain_interval([base], [own], liked, users, samples=200)
    fewer = gain_interval([base[:400]], [own[:400]], liked[:400], users[:400], samples=200)

    assert low < gain < high
    assert high - low < fewer.high - fewer.low


def test_no_seeds_are_no_comparison():
    with pytest.raises(ValueError, match="no seeds"):
        compare(lambda own: data_of(*shop(), own), OPTIONS, [], 0, torch.device("cpu"))
