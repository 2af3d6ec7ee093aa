"""Group directories: what is written is what is read, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from tests.group_builders import CRIME, CUT, TOYS, cut
from workers.grouping.group_files import (
    GROUPS_FILE,
    TENSOR_FILE,
    list_groups,
    load_groups,
    load_with_digest,
    save_groups,
)


@pytest.fixture
def saved(tmp_path):
    return save_groups(tmp_path, cut())


def edit(directory: Path, **changes: object) -> None:
    path = directory / GROUPS_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_cut_comes_back_as_it_was(tmp_path, saved):
    loaded = load_groups(tmp_path, CUT)

    original = cut()
    assert saved == tmp_path / CUT
    assert loaded.groups == (CRIME, TOYS) == original.groups
    assert (loaded.name, loaded.kind, loaded.encoder_id, loaded.parts, loaded.part_dim) == (
        original.name,
        original.kind,
        original.encoder_id,
        original.parts,
        original.part_dim,
    )
    assert np.array_equal(loaded.centroids, original.centroids)
    assert np.array_equal(loaded.mean, original.mean)
    assert loaded.centroids.dtype == loaded.mean.dtype == np.float32


def test_cuts_are_listed_and_others_directories_are_not(tmp_path, saved):
    save_groups(tmp_path, cut("other"))
    (tmp_path / "empty").mkdir()
    (tmp_path / ".films-aside").mkdir()
    (tmp_path / ".films-aside" / GROUPS_FILE).touch()

    assert list_groups(tmp_path) == [CUT, "other"]
    assert list_groups(tmp_path / "nowhere") == []


def test_the_same_cut_may_be_saved_again_but_no_other_under_its_name(tmp_path, saved):
    digest = load_with_digest(tmp_path, CUT).digest

    assert save_groups(tmp_path, cut()) == saved
    with pytest.raises(ConfigurationError, match="exists with another content"):
        save_groups(tmp_path, cut(groups=(CRIME,)))
    with pytest.raises(ConfigurationError, match="exists with another content"):
        save_groups(tmp_path, cut(mean=np.ones(16, np.float32)))

    assert load_with_digest(tmp_path, CUT).digest == digest
    assert list_groups(tmp_path) == [CUT]


def test_the_digest_tells_cuts_apart(tmp_path, saved):
    save_groups(tmp_path, cut("moved", mean=np.ones(16, np.float32)))
    save_groups(tmp_path, cut("fewer", groups=(CRIME,)))

    assert len({load_with_digest(tmp_path, name).digest for name in list_groups(tmp_path)}) == 3


@pytest.mark.parametrize("file", [GROUPS_FILE, TENSOR_FILE])
def test_a_file_that_is_gone_is_named(tmp_path, saved, file):
    (saved / file).unlink()

    with pytest.raises(ConfigurationError, match=f"cannot read .*{file}"):
        load_groups(tmp_path, CUT)


def test_tensors_that_changed_are_refused(tmp_path, saved):
    data = bytearray((saved / TENSOR_FILE).read_bytes())
    data[-1] ^= 1
    (saved / TENSOR_FILE).write_bytes(data)

    with pytest.raises(ConfigurationError, match="is not the file that was written"):
        load_groups(tmp_path, CUT)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"name": "other"}, "declares the groups other"),
        ({"groups": []}, "groups: Tuple should have at least 1 item"),
        ({"part_dim": 9}, r"tensor mean is \(16,\), needed \(18,\)"),
        ({"kind": "planet"}, "kind"),
        ({"more": 1}, "more"),
        ({"groups": [{"id": "a", "size": 1, "exemplars": []}]}, "tensor centroids"),
        ({"groups": [{"id": "a", "size": 1, "exemplars": []}] * 2}, "two groups have one id"),
        ({"groups": [{"id": "a b", "size": 1, "exemplars": []}] * 2}, "white space"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused_saying_why(tmp_path, saved, changes, detail):
    edit(saved, **changes)

    with pytest.raises(ConfigurationError, match=detail):
        load_groups(tmp_path, CUT)


def test_a_name_cannot_leave_the_directory(tmp_path):
    for name in ("../films", "", "Films", "a/b"):
        with pytest.raises(ConfigurationError, match="is not a name"):
            load_groups(tmp_path, name)
    with pytest.raises(ConfigurationError, match="is not a name"):
        save_groups(tmp_path, cut("../films"))
