"""A catalogue in files as raw parts: the parts the lanes would make, encoded once on a machine."""

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from streams.represented_catalogue import represent_catalogue
from streams.settings import EncodeSettings, KnowledgeSettings, Settings
from tests.fakes.encoding import PARTS, HashEncoder, text_vector
from tests.space_builders import json_lines
from workers.adaptors.space_files import list_spaces

CATALOG = [
    {"item_id": "2", "title": "Heat", "genres": ["Crime"]},
    {"item_id": "1", "title": "Alien"},
]
KNOWLEDGE = [
    {"item_id": "1", "knowledge": {"mood": "dread"}},
    {"item_id": "9", "knowledge": {"mood": "of no item here"}},
]


@pytest.fixture
def files(tmp_path):
    return {
        "catalog": json_lines(tmp_path / "catalog.jsonl", CATALOG),
        "knowledge": json_lines(tmp_path / "knowledge.jsonl", KNOWLEDGE),
    }


@pytest.fixture
def settings(tmp_path):
    return Settings(
        knowledge=KnowledgeSettings(factors=["mood"]),
        encode=EncodeSettings(spaces_dir=tmp_path / "spaces", cache_dir=tmp_path / "cache"),
    )


async def test_items_come_by_key_with_the_parts_the_lanes_would_make(settings, files):
    made = await represent_catalogue(settings, **files, load_encoder=lambda _: HashEncoder())

    assert [str(key) for key in made.keys] == ["item:1", "item:2"]
    assert made.raw.parts == PARTS
    assert made.mask.tolist() == [[True, False, True], [True, True, False]]
    np.testing.assert_array_equal(made.parts[0, 2], text_vector("dread").astype(np.float16))
    assert not made.parts[0, 1].any()


async def test_without_knowledge_there_are_only_content_parts(settings, files):
    made = await represent_catalogue(
        settings, catalog=files["catalog"], knowledge=None, load_encoder=lambda _: HashEncoder()
    )

    assert made.mask.any(axis=0).tolist() == [True, True, False]


async def test_known_texts_are_not_encoded_again(settings, files):
    first, second = HashEncoder(), HashEncoder()
    one = await represent_catalogue(settings, **files, load_encoder=lambda _: first)
    one.save_raw_space(settings.encode.spaces_dir)

    two = await represent_catalogue(settings, **files, load_encoder=lambda _: second)

    assert first.texts
    assert second.texts == []
    np.testing.assert_array_equal(one.parts, two.parts)


async def test_the_raw_space_is_made_once(settings, files):
    made = await represent_catalogue(settings, **files, load_encoder=lambda _: HashEncoder())

    made.save_raw_space(settings.encode.spaces_dir)
    made.save_raw_space(settings.encode.spaces_dir)

    assert list_spaces(settings.encode.spaces_dir) == [made.raw.name]


async def test_a_bound_takes_a_sample(settings, files):
    made = await represent_catalogue(
        settings, **files, limit=1, load_encoder=lambda _: HashEncoder()
    )

    assert len(made.keys) == len(made.parts) == len(made.mask) == 1


async def test_an_empty_catalogue_is_refused(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="holds no items"):
        await represent_catalogue(
            settings, catalog=json_lines(tmp_path / "none.jsonl", []), knowledge=None
        )
