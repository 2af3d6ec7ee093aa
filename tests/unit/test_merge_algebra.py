"""The delivery proof as algebra: merging is a join, so order and repetition do not matter."""

from functools import reduce

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey, EntityKind, Stage
from schemas.errors import InvalidInput, Permanent
from schemas.fingerprints import Json, canonical_json
from schemas.knowledge import (
    Content,
    Document,
    EntityRecord,
    Factors,
    KnowledgeRequest,
    KnowledgeUpdate,
    Provenance,
    Register,
    RegisterName,
    Removed,
    RequestKind,
    newest,
)
from schemas.reasons import Reason

# Few versions and texts, so that ties and kills are frequent.
versions = st.one_of(st.integers(0, 6), st.just(2**63 - 1))
times = st.integers(0, 3)
texts = st.sampled_from(["", "heat", "Hitze", "熱\U0001f525", "line\u2028"])
# Equal in Python, different on the wire.
scalars = st.sampled_from([1995, 1995.0, True, 1, 0.0, -0.0, None, "1995"])
fields = st.dictionaries(st.sampled_from(["title", "year", "tags"]), texts | scalars, max_size=3)

removals = st.builds(Removed, versions, times)
contents = st.builds(Content, versions, fields, texts, times)
provenances = st.builds(
    Provenance, texts, texts, texts, st.integers(0, 9), st.integers(0, 9), st.none() | texts
)
factor_texts = st.dictionaries(st.sampled_from(["mood", "theme"]), texts, max_size=2)
knowledge = st.builds(Factors, versions, times, factor_texts, provenances, times)

registers: st.SearchStrategy[tuple[RegisterName, Register]] = st.one_of(
    st.tuples(st.just(RegisterName.REMOVED), removals),
    st.tuples(st.just(RegisterName.CONTENT), contents),
    st.tuples(st.just(RegisterName.COLLECTIVE), knowledge),
    st.tuples(st.just(RegisterName.INDIVIDUAL), knowledge),
)


def merged(values: list[tuple[RegisterName, Register]]) -> Document:
    return reduce(Document.merge, (Document.of(*value) for value in values), Document())


documents = st.lists(registers, max_size=6).map(merged)


def wire(document: Document) -> bytes:
    """The spelling on the wire: stricter than ==, which takes 1 for 1.0 and for True."""
    return canonical_json(document.to_json())


@given(documents, documents)
def test_merging_is_commutative(a, b):
    assert wire(a.merge(b)) == wire(b.merge(a))


@given(documents, documents, documents)
def test_merging_is_associative(a, b, c):
    assert wire(a.merge(b).merge(c)) == wire(a.merge(b.merge(c)))


@given(documents, documents)
def test_merging_is_idempotent_and_absorbs_its_parts(a, b):
    assert wire(a.merge(a)) == wire(a)
    assert wire(a.merge(b).merge(a)) == wire(a.merge(b))


@given(documents)
def test_the_empty_document_changes_nothing(a):
    assert wire(a.merge(Document())) == wire(Document().merge(a)) == wire(a)


@given(st.lists(registers, max_size=8), st.randoms(use_true_random=False))
def test_any_order_with_any_repetition_ends_in_the_same_document(values, rng):
    delivered = values + [rng.choice(values) for _ in range(len(values))]
    rng.shuffle(delivered)

    assert wire(merged(delivered)) == wire(merged(values))


@given(documents, st.lists(registers, max_size=8))
def test_what_a_removal_killed_never_comes_back(a, later):
    document = a.merge(merged(later))

    if document.removed is not None:
        alive = (document.content, document.collective, document.individual)
        assert all(one.version > document.removed.version for one in alive if one is not None)
        old = [(n, v) for n, v in later if v.version <= document.removed.version]
        assert wire(document.merge(merged(old))) == wire(document)


@given(documents, documents)
def test_no_register_ever_goes_back_to_a_lower_version(a, b):
    document = a.merge(b)

    for before in (a, b):
        for name in RegisterName:
            old, new = getattr(before, name.value), getattr(document, name.value)
            if old is not None and new is not None:
                assert new.version >= old.version
            if old is not None and new is None:
                assert document.removed is not None
                assert document.removed.version >= old.version


@given(documents)
def test_a_document_survives_json(a):
    again = Document.from_json(orjson.loads(orjson.dumps(a.to_json())))

    assert wire(again) == wire(a)
    assert wire(again.merge(a)) == wire(a)


@given(documents, st.integers(1, 2**62))
def test_an_entity_record_survives_its_topic(a, rev):
    record = EntityRecord(EntityKey.item("42"), rev, a, 99)

    again = EntityRecord.decode(record.encode())

    assert (again.entity, again.rev, again.written_at_ms) == (record.entity, rev, 99)
    assert wire(again.document) == wire(a)


@given(registers)
def test_a_register_survives_the_knowledge_topic(register):
    update = KnowledgeUpdate(EntityKey.item("42"), *register)

    again = KnowledgeUpdate.decode(update.encode())

    assert (again.entity, again.register) == (update.entity, update.register)
    assert wire(Document.of(again.register, again.value)) == wire(Document.of(*register))


@given(fields, versions)
def test_a_request_survives_its_topic(values, version):
    request = KnowledgeRequest(
        EntityKey(EntityKind.USER, "7"), RequestKind.USER, version, values, "ab", 1, 2, 3, 4
    )

    assert KnowledgeRequest.decode(request.encode()) == request


def content(version: int, **values: Json) -> Content:
    return Content(version, values, "ab", 0)


def factors(version: int, at_ms: int = 0, **values: str) -> Factors:
    return Factors(version, at_ms, values, Provenance("m", "p", "f"), 0)


def test_values_equal_in_python_but_not_on_the_wire_are_ordered_all_the_same():
    whole, decimal = content(1, year=1995), content(1, year=1995.0)

    assert newest(whole, decimal) is newest(decimal, whole)


def test_of_two_answers_about_one_version_the_later_one_stays():
    early, late = factors(3, 10, mood="tense"), factors(3, 11, mood="calm")

    assert newest(early, late) is newest(late, early) is late


def test_a_removal_kills_its_own_version_and_spares_the_next():
    removed = Document(removed=Removed(5, 0))

    assert removed.merge(Document(content=content(5))).content is None
    assert removed.merge(Document(content=content(5))).is_removed
    back = removed.merge(Document(content=content(6)))
    assert back.content is not None
    assert not back.is_removed


def test_knowledge_written_about_the_entity_outranks_the_groups_whatever_their_versions():
    own, group = factors(1, mood="own"), factors(9, mood="group")

    both = Document(content=content(9), collective=group, individual=own)

    assert both.live_factors is own
    assert both.stage is Stage.INDIVIDUAL
    assert both.versions_behind == 8
    assert Document(content=content(9), collective=group).stage is Stage.COLLECTIVE
    assert Document(content=content(9)).stage is Stage.CONTENT
    assert Document().stage is Stage.NONE
    assert Document(content=content(9)).versions_behind is None
    assert Document(content=content(1), individual=factors(4)).versions_behind == 0


def update(register: str, **value: object) -> bytes:
    fields = {"version": 1, "event_time_ms": 1, **value}
    return orjson.dumps({"entity": "item:1", "register": register, "value": fields})


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b'{"entity":"item:1","register":"content"}',
        b'{"entity":"item:1","register":"mood","value":{}}',
        b'{"entity":"item:1","register":"content","value":null}',
        b'{"entity":"item:1","register":"content","value":{"version":1}}',
        b'{"entity":"item:1","register":"removed","value":{"version":true,"event_time_ms":1}}',
        b'{"entity":"item:1","register":"removed","value":{"version":1.5,"event_time_ms":1}}',
        update(register="content", fields=[], fingerprint="a"),
        update(register="individual", generated_at_ms=1, factors={}, provenance={"unknown": 1}),
        update(register="individual", generated_at_ms=1, factors={}, provenance=[]),
        update(register="individual", generated_at_ms=1, factors=[], provenance={}),
    ],
)
def test_an_unreadable_update_is_permanent(value):
    with pytest.raises(Permanent) as error:
        KnowledgeUpdate.decode(value)

    assert error.value.reason is Reason.UNREADABLE_KNOWLEDGE


@pytest.mark.parametrize("change", [{"kind": "urgent"}, {"fields": []}, {"version": "1"}])
def test_an_unreadable_request_is_permanent(change):
    request = KnowledgeRequest(EntityKey.item("1"), RequestKind.NEW, 1, {}, "ab", 1, 2)
    raw = {**orjson.loads(request.encode()), **change}

    with pytest.raises(Permanent) as error:
        KnowledgeRequest.decode(orjson.dumps(raw))

    assert error.value.reason is Reason.UNREADABLE_KNOWLEDGE


def test_a_record_about_no_entity_is_permanent():
    with pytest.raises(InvalidInput) as error:
        KnowledgeUpdate.decode(b'{"entity":"thing:1","register":"removed","value":{}}')

    assert error.value.reason is Reason.INVALID_ID


@pytest.mark.parametrize("value", [b"{}", b'{"entity":"item:1","rev":1,"document":[]}', b"7"])
def test_an_unreadable_entity_record_is_permanent(value):
    with pytest.raises(Permanent):
        EntityRecord.decode(value)
