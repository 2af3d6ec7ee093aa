"""What is left of a user: only what is older than the erasure counts."""

import pytest

from schemas.entities import Stage
from schemas.history import History, HistoryEvent, event_digest
from schemas.knowledge import Content, Document, Removed
from schemas.vector_record import VectorHeader
from streams.maintenance.erase import left_of
from workers.live.entity_store import StoredDetails

AT_MS = 5_000
OLDER, NEWER = 4_000, 6_000
MARK = History(10, AT_MS)
GONE = Document(removed=Removed(10, AT_MS))


def history(*times_ms: int, erased_at_ms: int = -1) -> History:
    events = (HistoryEvent(at, event_digest(str(at)), "42", "view") for at in times_ms)
    return History(9, erased_at_ms, tuple(events))


def stored(document: Document, *event_times_ms: int) -> StoredDetails:
    vectors = {
        f"space-{at}": VectorHeader(Stage.CONTENT, "float16", 4, 0, 9, 9, -1, at, at)
        for at in event_times_ms
    }
    return StoredDetails(document, 3, 1, vectors)


@pytest.mark.parametrize(
    ("history", "details", "gate", "left"),
    [
        (None, None, None, ("history", "knowledge")),
        (MARK, stored(GONE), None, ()),
        (history(OLDER), stored(GONE), None, ("history",)),
        (history(erased_at_ms=AT_MS - 1), stored(GONE), None, ("history",)),
        (MARK, stored(GONE, OLDER), None, ("vectors",)),
        (MARK, stored(GONE, AT_MS), None, ("vectors",)),
        (MARK, stored(Document(content=Content(9, {}, "", OLDER))), None, ("knowledge",)),
        (MARK, stored(Document(removed=Removed(8, OLDER))), None, ("knowledge",)),
        (MARK, None, None, ("knowledge",)),
        (MARK, stored(GONE), b"state", ("gate",)),
    ],
)
def test_what_is_older_than_the_erasure_is_left(history, details, gate, left) -> None:
    assert left_of(history, details, gate, AT_MS) == left


def test_what_a_user_did_since_may_stay() -> None:
    back = history(NEWER, erased_at_ms=AT_MS)
    written = Document(removed=Removed(10, AT_MS), content=Content(11, {}, "", NEWER))

    assert left_of(back, stored(written, NEWER), b"state", AT_MS) == ()


def test_a_later_erasure_is_one_as_well() -> None:
    later = Document(removed=Removed(12, NEWER))

    assert left_of(History(12, NEWER), stored(later), None, AT_MS) == ()
