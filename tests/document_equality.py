"""What "equal to an in-order run" means for documents, for tests of faults of any kind.

Equal up to versions of the same content: of v1=A, v2=B, v3=A one run emits all three, another one
coalesces v2 away and only confirms v3, so its document keeps A as of version 1 and the text that
was written for version 1. Removals older than live content do not count either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.fingerprints import Json, knowledge_fingerprint
from schemas.knowledge import Document
from streams.lanes.items import ItemChange
from tests.fakes.answers import version_in
from workers.live.seen_record import Seen


@dataclass(frozen=True, slots=True)
class LiveView:
    """What a ranker or a reader of knowledge can tell of an item, versions left out."""

    removed: bool
    fields: dict[str, Json] | None
    fingerprint: str | None
    knowledge_fingerprint: str | None


def newest(events: Sequence[ItemChange]) -> ItemChange:
    """Return the event that counts of all events of one item, whatever came when."""
    return max(events, key=lambda event: event.rank)


def expected_view(events: Sequence[ItemChange], *, prompt_id: str, model: str) -> LiveView:
    """Return the view that all events of one item must end in."""
    last = newest(events)
    if last.fields is None:
        return LiveView(True, None, None, None)
    knowledge = knowledge_fingerprint(last.fingerprint, prompt_id, model)
    return LiveView(False, dict(last.fields), last.fingerprint, knowledge)


def live_view(document: Document) -> LiveView:
    """Return the view that a document gives."""
    content, factors = document.content, document.live_factors
    if content is None:
        return LiveView(document.is_removed, None, None, None)
    return LiveView(
        False,
        dict(content.fields),
        content.fingerprint,
        None if factors is None else factors.provenance.fingerprint,
    )


def assert_converged(
    events: Sequence[ItemChange],
    document: Document,
    seen: Seen | None,
    *,
    prompt_id: str,
    model: str,
    texts_name_versions: bool = True,
) -> None:
    """Assert that a quiet system has done all that the events of one item ask for.

    `seen` is None where it is out of reach. `texts_name_versions`: the factors come from the
    VersionWriter, so they are checked to be written for the content that is live.
    """
    last = newest(events)
    assert live_view(document) == expected_view(events, prompt_id=prompt_id, model=model)
    if seen is not None:
        assert (seen.version, seen.removed, seen.fingerprint) == last.rank
    if document.content is None:
        assert document.removed is not None
        assert document.removed.version == last.version
        return
    same_content = {event.version for event in events if event.fingerprint == last.fingerprint}
    assert document.content.version in same_content
    factors = document.individual
    assert factors is not None
    if texts_name_versions:
        for text in factors.factors.values():
            assert version_in(text) in same_content
