"""The trained space of the demo: trained once, and again when its data have changed."""

from pathlib import Path

import pytest

from deploy.demo import learned_space
from deploy.demo.films import SUMMER_STARTS_MS
from deploy.demo.learned_space import SPACE, put_learned_space
from streams.learn_training import LearnJob
from streams.settings import EncodeSettings, Settings
from tests.fakes.encoding import HashEncoder
from tests.learn_builders import learn_adaptor, small_model
from workers.adaptors.space_files import load_space, save_space
from workers.encoding.parity import Golden


class Training:
    """Stands for streams.learn_training.train; keeps its jobs."""

    def __init__(self) -> None:
        self.jobs: list[LearnJob] = []

    async def __call__(self, settings, job, *, progress, on_epoch):
        self.jobs.append(job)
        progress("encoding", 3, 4)
        adaptor = learn_adaptor(small_model(seed=len(self.jobs)), job.name)
        save_space(settings.encode.spaces_dir, adaptor, Golden.record(HashEncoder(), ("golden",)))


@pytest.fixture
def training(monkeypatch) -> Training:
    fake = Training()
    monkeypatch.setattr(learned_space, "train", fake)
    return fake


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        encode=EncodeSettings(spaces_dir=tmp_path / "spaces", cache_dir=tmp_path / "cache")
    )


def kept_in(settings: Settings) -> Path:
    (kept,) = settings.encode.cache_dir.glob("learn-*")
    return kept


def test_a_space_is_trained_on_what_was_known_before_the_summer(training, settings, capsys):
    put_learned_space(settings)

    (job,) = training.jobs
    assert job.until_ms == SUMMER_STARTS_MS
    assert (job.data / "catalog.jsonl").is_file()
    assert load_space(settings.encode.spaces_dir, SPACE).space.name == SPACE
    assert "encoding: 3 of 4" in capsys.readouterr().out


def test_the_next_demo_takes_what_is_kept(training, settings):
    put_learned_space(settings)
    first = load_space(settings.encode.spaces_dir, SPACE).adaptor.tensors()

    put_learned_space(settings)

    assert len(training.jobs) == 1
    again = load_space(settings.encode.spaces_dir, SPACE).adaptor.tensors()
    assert (again["content.weight"] == first["content.weight"]).all()


@pytest.mark.parametrize("broken", ["space.json", "adaptor.safetensors"])
def test_what_was_cut_short_is_trained_again(training, settings, broken):
    put_learned_space(settings)
    (kept_in(settings) / SPACE / broken).unlink()

    put_learned_space(settings)

    assert len(training.jobs) == 2
    assert load_space(settings.encode.spaces_dir, SPACE).space.name == SPACE


def test_other_ratings_are_another_space(training, settings, monkeypatch, tmp_path):
    put_learned_space(settings)
    ratings = tmp_path / "ratings.csv.gz"
    ratings.write_bytes(b"other")
    monkeypatch.setattr(learned_space, "RATINGS_FILE", ratings)

    put_learned_space(settings)

    assert len(training.jobs) == 2
    assert len(list(settings.encode.cache_dir.glob("learn-*"))) == 2
