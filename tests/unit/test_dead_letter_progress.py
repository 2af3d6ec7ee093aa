"""Which letters a replay leaves out: below the floor, or below their reason's mark."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import Reason
from streams.replay_progress import Progress

BAD, JSON = Reason.BAD_VERSION, Reason.NOT_JSON


def test_a_replay_of_one_reason_covers_only_that_reason() -> None:
    progress = Progress().passed(4, BAD)

    assert progress.covers(4, BAD)
    assert not progress.covers(5, BAD)
    assert not progress.covers(4, JSON)


def test_a_replay_of_everything_covers_every_reason_and_drops_marks_below_it() -> None:
    progress = Progress().passed(4, BAD).passed(9, JSON).passed(6, None)

    assert progress.covers(6, BAD)
    assert progress.covers(9, JSON)
    assert not progress.covers(7, BAD)
    assert progress.marks == {"not_json": 10}


def test_foreign_commit_metadata_counts_as_no_marks() -> None:
    for metadata in ("", "rubbish", "[1]", '{"not_json": "7"}', '{"not_json": true}'):
        assert Progress.decode(3, metadata) == Progress(3)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([None, *Reason])), min_size=1, max_size=30
    )
)
def test_progress_survives_its_commit_and_fits_kafkas_limit(steps) -> None:
    progress = Progress()
    for offset, reason in steps:
        progress = progress.passed(offset, reason)

    encoded = progress.encode()

    assert Progress.decode(progress.floor, encoded) == progress
    assert len(encoded) < 4096  # offset.metadata.max.bytes
