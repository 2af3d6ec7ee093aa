"""`freshet train reki` and `freshet evaluate reki` on a folder of files."""

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from streams.reki_training import RekiJob, evaluate, train
from streams.settings import Settings
from tests.fakes.encoding import ENCODER_ID, HashEncoder
from tests.history_builders import DAY_MS, START_MS
from tests.space_builders import deployment_settings, json_lines
from workers.adaptors.space_files import list_spaces, load_space
from workers.towers.load_towers import TowerOptions, tower_of
from workers.training.reki_options import RekiOptions

OPTIONS = RekiOptions(
    components=4, shared=1, dedicated=1, attributes=("genres",), embedding=4, attention=(8, 4),
    layers=(8, 4), epochs=2, batch=64, least_seen=2, test_share=0.0,
)  # fmt: skip


def settings(directory: Path) -> Settings:
    made = deployment_settings("127.0.0.1:1", "redis://127.0.0.1:1/0", "p.", directory / "spaces")
    return made.model_copy(
        update={"encode": made.encode.model_copy(update={"cache_dir": directory / "cache"})}
    )


def folder(directory: Path, *, rating: bool = True, at_ms: bool = True) -> Path:
    items = [
        {"item_id": str(n), "title": f"Film {n}", "genres": [["Drama"], ["Crime"]][n % 2]}
        for n in range(20)
    ]
    data = directory / "data"
    data.mkdir()
    json_lines(data / "catalog.jsonl", items)
    json_lines(
        data / "knowledge.jsonl",
        [{"item_id": str(n), "knowledge": {"mood": f"mood {n % 5}"}} for n in range(10)],
    )
    random = np.random.default_rng(0)
    rows = []
    for n in range(400):
        row: dict[str, object] = {
            "user_id": f"u{random.integers(0, 40)}",
            "item_id": str(random.integers(0, 22)),  # two of them are in no catalogue
        }
        row |= {"rating": float(random.integers(1, 11))} if rating else {}
        row |= {"at_ms": START_MS + n * DAY_MS // 10} if at_ms else {}
        rows.append(row)
    json_lines(data / "interactions.jsonl", rows)
    return data


async def test_a_folder_becomes_a_space_that_serves(tmp_path: Path):
    config, data = settings(tmp_path), folder(tmp_path)

    path, trained = await train(
        config, RekiJob(data, "reki-1", OPTIONS), load_encoder=lambda *_: HashEncoder()
    )

    spaces = tmp_path / "spaces"
    assert path == spaces / "reki-1"
    assert sorted(list_spaces(spaces)) == ["minilm-parts", "reki-1"]
    loaded = load_space(spaces, "reki-1")
    assert loaded.space.encoder_id == ENCODER_ID
    assert len(str(loaded.space.fitted_on["sha256_catalog.jsonl"])) == 64
    assert "sha256_knowledge.jsonl" in loaded.space.fitted_on
    assert loaded.space.metrics == {"valid_auc": pytest.approx(trained.valid_auc, abs=1e-4)}
    # A rating of 8 in 4.5 to 10 weighs .636 in the behaviour lane: that is a like here.
    assert loaded.space.fitted_on["liked_from_thousandths"] == 636
    tower = tower_of(loaded.space, TowerOptions(DAY_MS, spaces_dir=spaces))
    assert tower.input_space == load_space(spaces, "minilm-parts").space
    assert not (spaces / ".reki-1-training").exists()


async def test_a_space_is_not_trained_twice(tmp_path: Path):
    config, data = settings(tmp_path), folder(tmp_path)
    job = RekiJob(data, "reki-1", OPTIONS)
    await train(config, job, load_encoder=lambda *_: HashEncoder())

    with pytest.raises(ConfigurationError, match="the space reki-1 exists"):
        await train(config, job, load_encoder=lambda *_: HashEncoder())


@pytest.mark.parametrize(
    ("without", "message"),
    [({"rating": False}, "rates no item"), ({"at_ms": False}, "without a time")],
)
async def test_interactions_need_ratings_and_times(tmp_path: Path, without, message: str):
    data = folder(tmp_path, **without)

    with pytest.raises(ConfigurationError, match=message):
        await train(
            settings(tmp_path),
            RekiJob(data, "reki-1", OPTIONS),
            load_encoder=lambda *_: HashEncoder(),
        )


async def test_a_folder_is_judged(tmp_path: Path):
    config, data = settings(tmp_path), folder(tmp_path)
    options = RekiOptions(**{**OPTIONS.declared(), "test_share": 0.3})  # type: ignore[arg-type]

    found = await evaluate(
        config, data, options, arms=["reki"], seeds=1, load_encoder=lambda *_: HashEncoder()
    )

    assert list(found) == ["without", "reki"]
    assert found["reki"].by_seed is None
    with pytest.raises(ConfigurationError, match="'best' is none of without, reki"):
        await evaluate(config, data, options, arms=["best"], seeds=1)
    with pytest.raises(ConfigurationError, match="nothing would be left"):
        await evaluate(config, data, OPTIONS, arms=["reki"], seeds=1)
