"""The vector record: its bytes are a contract with readers in other languages."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.vector_record import (
    HEADER,
    VectorHeader,
    VectorRecord,
    decode_header,
    decode_many,
    record_dtype,
)

EXAMPLES_FILE = Path(__file__).parents[2] / "deploy/contracts/examples/vector-record.json"
EXAMPLES = json.loads(EXAMPLES_FILE.read_text())["examples"]

integers = st.integers(-1, 2**63 - 1)
headers = st.builds(
    VectorHeader,
    stage=st.integers(0, 3),
    dtype=st.sampled_from(["float16", "float32"]),
    dim=st.integers(1, 40),
    mask=st.integers(0, 2**32 - 1),
    rev=integers,
    content_version=integers,
    factors_version=integers,
    event_time_ms=st.integers(-(2**63), 2**63 - 1),
    written_at_ms=st.integers(-(2**63), 2**63 - 1),
)
records = headers.flatmap(
    lambda header: st.builds(
        VectorRecord,
        st.just(header),
        hnp.arrays(header.dtype, header.dim, elements={"allow_nan": False}),
    )
)


def record(dim: int = 4, dtype: str = "float16", rev: int = 1) -> bytes:
    header = VectorHeader(1, dtype, dim, 3, rev, 7, -1, 10, 20)
    return VectorRecord(header, np.arange(dim, dtype=dtype)).encode()


@given(records)
def test_a_record_survives_its_bytes(one):
    again = VectorRecord.decode(one.encode())

    assert again.header == one.header
    assert again.vector.dtype == one.vector.dtype
    np.testing.assert_array_equal(again.vector, one.vector)
    assert decode_header(one.encode()) == one.header


@given(st.lists(st.integers(0, 2**62), max_size=5), st.sampled_from(["float16", "float32"]))
def test_many_records_decode_as_each_one_does(revs, dtype):
    many = decode_many([record(3, dtype, rev) for rev in revs], 3, dtype)

    assert many["header"]["rev"].tolist() == revs
    assert many["vector"].shape == (len(revs), 3)
    assert (many["vector"] == [0, 1, 2]).all()


def test_the_documented_offsets_are_the_bytes():
    header = VectorHeader(3, "float32", 2, 0x80000001, 2**40, -1, 2**50, 1_700_000_000_000, 5)

    data = VectorRecord(header, np.array([1.5, -2.0], np.float32)).encode()

    assert HEADER.size == record_dtype(2, "float32")["header"].itemsize == 52
    assert data[:4] == bytes([1, 3, 2, 0])
    assert struct.unpack_from(">H", data, 4) == (2,)
    assert struct.unpack_from(">I", data, 8) == (0x80000001,)
    assert struct.unpack_from(">qqqqq", data, 12) == (2**40, -1, 2**50, 1_700_000_000_000, 5)
    assert struct.unpack_from("<ff", data, 52) == (1.5, -2.0)
    assert len(data) == 60


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["name"] for example in EXAMPLES])
def test_the_published_examples_are_what_the_codec_reads_and_writes(example):
    header = VectorHeader(**example["header"])
    vector = np.array(example["values"], header.dtype)

    decoded = VectorRecord.decode(bytes.fromhex(example["hex"]))

    assert VectorRecord(header, vector).encode().hex() == example["hex"]
    assert decoded.header == header
    np.testing.assert_array_equal(decoded.vector, vector)


def test_the_published_examples_cover_every_stage_and_dtype():
    assert {example["header"]["stage"] for example in EXAMPLES} == {0, 1, 2, 3}
    assert {example["header"]["dtype"] for example in EXAMPLES} == {"float16", "float32"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        record()[:51],
        b"\x02" + record()[1:],
        record()[:2] + b"\x03" + record()[3:],
        record()[:-1],
        record() + b"\0",
    ],
    ids=["empty", "short header", "other format", "other dtype", "short vector", "long vector"],
)
def test_what_is_no_record_is_a_value_error(data):
    with pytest.raises(ValueError, match="vector record"):
        VectorRecord.decode(data)
    with pytest.raises(ValueError, match="record is not"):
        decode_many([record(), data], 4, "float16")


@pytest.mark.parametrize(
    ("dim", "dtype"), [(2, "float32"), (3, "float16"), (4, "float32")], ids=str
)
def test_records_of_another_space_are_a_value_error_even_at_the_same_size(dim, dtype):
    with pytest.raises(ValueError, match="record is not"):
        decode_many([record(4, "float16"), record(dim, dtype)], 4, "float16")


def test_sizes_that_are_wrong_alone_and_right_in_sum_are_noticed():
    with pytest.raises(ValueError, match="record is not"):
        decode_many([record()[:-2], record() + b"\0\0"], 4, "float16")


def test_a_vector_that_is_not_the_headers_is_not_written():
    header = VectorHeader(1, "float16", 4, 3, 1, 7, -1, 10, 20)

    with pytest.raises(ValueError, match="shape"):
        VectorRecord(header, np.zeros(3, np.float16)).encode()
