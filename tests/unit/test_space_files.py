"""A space directory appears whole, never changes, and is checked when it is loaded."""

import json

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.fakes.encoding import DIM, PARTS, HashEncoder
from workers.adaptors.parts_pca import PartsPca, fit_parts_pca
from workers.adaptors.raw import raw_adaptor
from workers.adaptors.space_files import (
    SPACE_FILE,
    TENSOR_FILE,
    list_spaces,
    load_space,
    save_space,
)
from workers.encoding.parity import Golden

GOLDEN = Golden.record(HashEncoder())


def pca(name: str = "pca-1", seed: int = 1) -> PartsPca:
    parts = np.random.default_rng(seed).standard_normal((30, len(PARTS), DIM)).astype(np.float32)
    mask = np.ones((30, len(PARTS)), np.bool_)
    return fit_parts_pca(parts, mask, name=name, encoder_id="hash", part_names=PARTS, dim=5)


def test_a_loaded_space_makes_the_very_same_vectors(tmp_path):
    adaptor = pca()
    parts = np.random.default_rng(2).standard_normal((4, len(PARTS), DIM)).astype(np.float32)
    mask = np.array([[True] * 3, [True, False, False], [False] * 3, [False, False, True]])

    save_space(tmp_path / "spaces", adaptor, GOLDEN)
    space, loaded, golden = load_space(tmp_path / "spaces", "pca-1")

    assert space == adaptor.space
    np.testing.assert_array_equal(loaded.apply(parts, mask), adaptor.apply(parts, mask))
    np.testing.assert_array_equal(loaded.default, adaptor.default)
    assert golden.texts == GOLDEN.texts
    np.testing.assert_array_equal(golden.vectors, GOLDEN.vectors)


def test_a_raw_space_concatenates_and_zeroes_what_is_missing(tmp_path):
    save_space(tmp_path, raw_adaptor("hash", PARTS, DIM, name="raw"), GOLDEN)
    parts = np.ones((1, len(PARTS), DIM), np.float32)

    adaptor = load_space(tmp_path, "raw").adaptor
    vectors = adaptor.apply(parts, np.array([[True, False, True]]))

    assert vectors.tolist() == [[1.0] * DIM + [0.0] * DIM + [1.0] * DIM]
    assert not adaptor.default.any()


def test_spaces_are_listed_by_name_and_leftovers_are_not(tmp_path):
    save_space(tmp_path, pca("pca-2"), GOLDEN)
    save_space(tmp_path, pca("pca-1"), GOLDEN)
    (tmp_path / ".pca-3-abc").mkdir()
    (tmp_path / ".pca-3-abc" / SPACE_FILE).write_text("{}")
    (tmp_path / "empty").mkdir()

    assert list_spaces(tmp_path) == ["pca-1", "pca-2"]
    assert list_spaces(tmp_path / "absent") == []


def test_saving_the_same_space_again_changes_nothing(tmp_path):
    first = save_space(tmp_path, pca(), GOLDEN)
    written = (first / TENSOR_FILE).read_bytes()

    save_space(tmp_path, pca(), GOLDEN)

    assert (first / TENSOR_FILE).read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["pca-1"]


def test_another_space_of_the_same_name_is_refused(tmp_path):
    save_space(tmp_path, pca(seed=1), GOLDEN)

    with pytest.raises(ConfigurationError, match="exists with another content"):
        save_space(tmp_path, pca(seed=2), GOLDEN)

    assert load_space(tmp_path, "pca-1").space == pca(seed=1).space
    assert [path.name for path in tmp_path.iterdir()] == ["pca-1"]


def test_a_tensor_file_that_was_tampered_with_is_refused(tmp_path):
    path = save_space(tmp_path, pca(), GOLDEN) / TENSOR_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(ConfigurationError, match="not the file that was written"):
        load_space(tmp_path, "pca-1")


@pytest.mark.parametrize("file", [SPACE_FILE, TENSOR_FILE])
def test_a_missing_file_is_named(tmp_path, file):
    (save_space(tmp_path, pca(), GOLDEN) / file).unlink()

    with pytest.raises(ConfigurationError, match=f"pca-1.*{file}"):
        load_space(tmp_path, "pca-1")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dim": 0}, "space.dim"),
        ({"dim": 6}, r"tensor projection is \(24, 5\), needed \(24, 6\)"),
        ({"adaptor_id": "magic"}, "no adaptor is called 'magic'"),
        ({"adaptor_id": "raw"}, "a raw space has no tensors"),
        ({"name": "other"}, "declares the space other"),
        ({"part_dim": 9}, "golden vectors"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(tmp_path, change, told):
    path = save_space(tmp_path, pca(), GOLDEN) / SPACE_FILE
    declaration = json.loads(path.read_text())
    declaration["space"].update(change)
    path.write_text(json.dumps(declaration))

    with pytest.raises(ConfigurationError, match=told):
        load_space(tmp_path, "pca-1")


@pytest.mark.parametrize("name", ["../etc", "", "Upper", "a/b"])
def test_a_name_cannot_leave_the_directory(tmp_path, name):
    with pytest.raises(ConfigurationError, match="not a space name"):
        load_space(tmp_path, name)
