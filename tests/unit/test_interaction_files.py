"""Interactions from files: every documented form gives the same columns, bad lines are named."""

import gzip

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from workers.evaluation.interaction_files import NO_TIME, histories_of, read_interactions

CSV = "user_id,item_id,rating,timestamp\n7,tt1,8,1000.5\n7,tt2,,\n8,tt1,3.5,12\n"
JSONL = (
    '{"user_id": 7, "item_id": "tt1", "rating": 8, "at_ms": 1000500}\n'
    '\n{"user_id": "7", "item_id": "tt2"}\n'
    '{"user_id": "8", "item_id": "tt1", "value": 3.5, "timestamp": 12}\n'
)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", CSV), ("a.csv.gz", CSV), ("a.jsonl", JSONL), ("a.jsonl.gz", JSONL)],
)
def test_every_form_gives_the_same_columns(tmp_path, name, text):
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    found = read_interactions(tmp_path / name)

    assert found.user.tolist() == ["7", "7", "8"]
    assert found.item.tolist() == ["tt1", "tt2", "tt1"]
    np.testing.assert_array_equal(found.value, [8, np.nan, 3.5])
    assert found.at_ms.tolist() == [1_000_500, NO_TIME, 12_000]
    assert not found.timed
    assert found.take(found.at_ms != NO_TIME).timed


def test_ids_alone_are_enough(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("item_id,user_id\n1,b\n2,a\n1,b\n3,b\n")

    found = read_interactions(path)

    assert histories_of(found) == {"b": ("1", "3"), "a": ("2",)}
    assert np.isnan(found.value).all()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "user_id,film\n1,2\n", "no item_id"),
        ("a.csv", "user_id,item_id\n1,2\n1,\n", "line 3: item_id is None"),
        ("a.csv", "user_id,item_id,rating\n1,2,good\n", "line 2: rating is 'good'"),
        ("a.csv", "user_id,item_id,timestamp\n1,2,-5\n", "line 2: timestamp is below 0"),
        ("a.jsonl", '{"user_id": 1, "item_id": 2}\n{"user_id"\n', "line 2"),
        ("a.jsonl", '{"user_id": true, "item_id": 2}\n', "line 1: user_id is True"),
        ("a.jsonl", '{"user_id": 1, "item_id": 2, "rating": true}\n', "line 1: rating is True"),
        ("a.jsonl", "[1]\n", "line 1: user_id is None"),
        ("a.txt", "", r"neither \.csv nor \.jsonl"),
        ("a.csv.gz", "no gzip", "a.csv.gz"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=message):
        read_interactions(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.csv"):
        read_interactions(tmp_path / "gone.csv")
