"""`freshet train learn`: from a folder of files to a space directory."""

from dataclasses import replace

import pytest

from schemas.errors import ConfigurationError
from streams.learn_training import LearnJob, interactions_file, train
from tests.fakes.encoding import HashEncoder
from tests.space_builders import PARTS, RAW, deployment_settings, json_lines
from workers.adaptors.learn import LearnAdaptor
from workers.adaptors.space_files import list_spaces, load_space
from workers.training.learn_batches import BatchSizes
from workers.training.learn_options import LearnOptions

OPTIONS = LearnOptions(
    width=12,
    heads=2,
    ffn=8,
    dim=6,
    history=10,
    centres=10,
    directions=3,
    epochs=1,
    sizes=BatchSizes(users=16, history=10, targets=10, positions=1, pairs=3),
)
ITEMS, USERS = 30, 24


@pytest.fixture
def settings(tmp_path):
    made = deployment_settings("localhost:1", "redis://localhost:1", "t.", tmp_path / "spaces")
    return made.model_copy(
        update={"encode": made.encode.model_copy(update={"cache_dir": tmp_path / "cache"})}
    )


@pytest.fixture
def folder(tmp_path):
    directory = tmp_path / "films"
    directory.mkdir()
    json_lines(
        directory / "catalog.jsonl",
        ({"item_id": str(n), "title": f"Film {n}", "genres": ["Drama"]} for n in range(ITEMS)),
    )
    json_lines(
        directory / "knowledge.jsonl",
        ({"item_id": str(n), "knowledge": {"mood": f"mood {n % 3}"}} for n in range(ITEMS)),
    )
    lines = [
        f"u{user},{item},{9 if item % 5 else 2},{1_000 * user + item}"
        for user in range(USERS)
        for item in range(user % 3, ITEMS, 3)
    ]
    text = "\n".join(["user_id,item_id,rating,timestamp", *lines, "u0,nowhere,9,5"])
    (directory / "ratings.csv").write_text(text)
    return directory


def job(folder, **changes):
    return replace(LearnJob(data=folder, name="learn-1", options=OPTIONS, device="cpu"), **changes)


async def run(settings, job):
    return await train(settings, job, load_encoder=lambda _choice: HashEncoder())


async def test_a_folder_becomes_a_space_beside_its_raw_one(settings, folder):
    path, trained = await run(settings, job(folder))

    directory = settings.encode.spaces_dir
    assert path == directory / "learn-1"
    assert list_spaces(directory) == ["learn-1", RAW]
    assert [one.name for one in directory.iterdir() if one.name.startswith(".")] == []
    loaded = load_space(directory, "learn-1")
    assert isinstance(loaded.adaptor, LearnAdaptor)
    assert loaded.space == trained.adaptor.space
    assert loaded.space.parts == PARTS
    # What was rated low, or is not in the catalogue, was not taken to.
    assert loaded.space.fitted_on["interactions"] == USERS * 8
    assert {"sha256_ratings.csv", "sha256_catalog.jsonl", "sha256_knowledge.jsonl"} <= set(
        loaded.space.fitted_on
    )


async def test_a_name_that_is_taken_is_refused_before_anything_is_computed(settings, folder):
    await run(settings, job(folder))

    with pytest.raises(ConfigurationError, match="the space learn-1 exists"):
        await run(settings, job(folder))


async def test_later_interactions_can_be_left_out(settings, folder):
    _, trained = await run(settings, job(folder, until_ms=10_000_000))

    assert trained.adaptor.space.fitted_on["interactions"] == 10 * 8


async def test_a_file_can_say_what_to_choose_by(settings, folder):
    valid = folder / "later.csv"
    valid.write_text("user_id,item_id\nu0,0\nu1,1\nu3,0\n")

    _, trained = await run(settings, job(folder, valid=valid, refit=False))

    # Both items leave the training: they are what is to be found.
    assert trained.adaptor.space.fitted_on["interactions"] == USERS * 8 - 8
    assert trained.epochs[0].figures is not None


async def test_what_is_left_out_from_a_date_on_chooses_nothing_either(settings, folder):
    valid = folder / "later.csv"
    valid.write_text("user_id,item_id,timestamp\nu0,1,5\nu1,2,10000000\n")

    _, trained = await run(settings, job(folder, valid=valid, until_ms=10_000_000, refit=False))

    # Only the first item is asked about, so only it leaves the training: three liked it.
    assert trained.adaptor.space.fitted_on["interactions"] == 10 * 8 - 3


async def test_more_dimensions_than_the_network_is_wide_are_refused(settings, folder):
    wide = replace(OPTIONS, dim=OPTIONS.width + 1)

    with pytest.raises(ConfigurationError, match="at most the width of the network, 12"):
        await run(settings, job(folder, options=wide))


async def test_knowledge_can_be_left_out_of_the_training(settings, folder):
    _, trained = await run(settings, job(folder, knowledge=False))

    assert "sha256_knowledge.jsonl" not in trained.adaptor.space.fitted_on
    assert not trained.adaptor.tensors()["mean"][2].any()


def test_a_folder_needs_one_file_of_interactions(folder):
    assert interactions_file(folder) == folder / "ratings.csv"
    (folder / "interactions.jsonl").write_text("")

    with pytest.raises(ConfigurationError, match=r"has interactions\.jsonl, ratings\.csv"):
        interactions_file(folder)


async def test_interactions_without_times_cannot_be_cut(settings, folder):
    (folder / "ratings.csv").write_text("user_id,item_id\nu0,1\nu0,2\n")

    with pytest.raises(ConfigurationError, match="have no times"):
        await run(settings, job(folder, until_ms=5))
