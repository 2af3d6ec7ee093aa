"""Which request for knowledge outranks which, and whether one still needs an answer. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from schemas.knowledge import Document, Factors, KnowledgeRequest, RequestKind
from streams.engine.outcomes import Outcome, Settled

_PRECEDENCE: Mapping[RequestKind, int] = {
    RequestKind.REMOVE: 2,
    RequestKind.NEW: 1,
    RequestKind.CHANGED: 1,
    RequestKind.USER: 1,
    RequestKind.UPGRADE: 0,
    RequestKind.REFRESH: 0,
}


def outranks(challenger: KnowledgeRequest, holder: KnowledgeRequest) -> bool:
    """Return whether the challenger is the one to keep of two requests about one entity.

    The greater version; of one version a removal, then the content that the items lane prefers,
    then the more pressing kind, then what was asked last.
    """
    return _rank(challenger) > _rank(holder)


def _rank(request: KnowledgeRequest) -> tuple[int, bool, str, int, int]:
    return (
        request.version,
        request.kind is RequestKind.REMOVE,
        request.content_fingerprint,
        _PRECEDENCE[request.kind],
        request.requested_at_ms,
    )


def brought_up_to_date(request: KnowledgeRequest, known: Document) -> KnowledgeRequest:
    """Return the request as for the newest known version of the very content it is about.

    A crash can leave a content without its request while an older version of the same content,
    delivered again, gets one: then the older request is the only one.
    """
    content = known.content
    if (
        content is None
        or content.version <= request.version
        or content.fingerprint != request.content_fingerprint
    ):
        return request
    return replace(request, version=content.version, event_time_ms=content.event_time_ms)


def judge(request: KnowledgeRequest, known: Document, fingerprint: str) -> Settled | Factors | None:
    """Return how a request ends without a call: settled, or by stamping known factors anew.

    None means that a model has to be asked. `fingerprint` is the knowledge fingerprint that the
    answer would have; `request` is not a removal.
    """
    if known.removed is not None and known.removed.version >= request.version:
        return _stale("removed")
    content = known.content
    if content is not None and (content.version, content.fingerprint) > (
        request.version,
        request.content_fingerprint,
    ):
        return _stale("newer_content")  # whose own request is, or will be, in the topic
    factors = known.individual
    if factors is None:
        return None
    if factors.provenance.fingerprint != fingerprint:
        return _stale("newer_knowledge") if factors.version > request.version else None
    if factors.version < request.version:
        # Asked and answered already, for an older version of the same content.
        return replace(factors, version=request.version, event_time_ms=request.event_time_ms)
    if (
        request.kind is RequestKind.REFRESH
        and factors.version == request.version
        and factors.generated_at_ms < request.requested_at_ms
    ):
        return None  # somebody wants these very factors written anew
    return Settled(Outcome.UNCHANGED, reason="same_fingerprint", called=("redis",))


def _stale(reason: str) -> Settled:
    return Settled(Outcome.STALE, reason=reason, called=("redis",))
