"""Prompts about groups: members a line each, never none, the same factors and the same fence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.entities import EntityKey, EntityKind
from schemas.errors import InvalidInput
from schemas.fingerprints import Json, content_fingerprint
from schemas.knowledge import KnowledgeRequest, RequestKind
from streams.lanes.group_requests import group_request
from tests.group_builders import CRIME, cut
from tests.quality.attacks import read_attacks
from workers.knowledge.group_prompt import MAX_MEMBERS, group_prompt, group_prompt_id
from workers.knowledge.load_domain import domain_names, load_domain
from workers.knowledge.prompts import FENCE_CLOSES, FENCE_OPENS, Domain, prompt_id
from workers.knowledge.recorded_writer import RecordedWriter
from workers.knowledge.select_prompt import PROMPTED_KINDS, prompt_about, prompt_id_of
from workers.knowledge.user_prompt import user_prompt_id
from workers.knowledge.writer import Rejected

GROUP = EntityKey(EntityKind.GROUP, "films-0")
FACTORS = ("genre", "people", "theme", "mood", "acclaim", "audience")
FIELDS: dict[str, Json] = {"members": list(CRIME.exemplars)}


def domain(name: str = "movies") -> Domain:
    return load_domain(name, factors=FACTORS, max_factor_chars=400, max_tokens=400)


def fenced(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[lines.index(FENCE_OPENS) + 1 : lines.index(FENCE_CLOSES)]


def of(*titles: str) -> dict[str, Json]:
    return {"members": [{"title": title} for title in titles]}


def test_members_are_told_a_title_a_line():
    assert fenced(group_prompt(domain(), FIELDS).user) == ["- Heat (1995; Crime)", "- Ronin"]


def test_neither_the_groups_nor_the_items_ids_are_in_it():
    fields: dict[str, Json] = {"members": [{"item": "tt0113277", "title": "Heat", "price": 7}]}

    prompt = prompt_about(domain(), GROUP, fields)

    assert fenced(prompt.user) == ["- Heat"]
    assert "films-0" not in prompt.system + prompt.user


@pytest.mark.parametrize("name", domain_names())
def test_every_domain_asks_the_factors_of_its_items(name):
    factors = load_domain(name, factors=("genre",), max_factor_chars=200, max_tokens=200).factors

    prompt = group_prompt(
        load_domain(name, factors=("genre",), max_factor_chars=200, max_tokens=200), of("Heat")
    )

    assert prompt.factor_names == ("genre",)
    assert factors[0].ask in prompt.system
    assert "in common" in prompt.user


def test_at_most_fifteen_members_are_told_the_first():
    titles = [f"Film {n}" for n in range(40)]

    inside = fenced(group_prompt(domain(), of(*titles)).user)

    assert inside == [f"- {title}" for title in titles[:MAX_MEMBERS]]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        of(),
        of("", "\u200b", "  "),
        {"members": "Heat"},
        {"members": [{"name": "Heat"}, "Heat", None]},
        {"title": "Heat"},
    ],
)
def test_a_model_is_never_asked_about_nothing(fields):
    with pytest.raises(InvalidInput, match="empty_title"):
        group_prompt(domain(), fields)


def test_each_kind_of_entity_has_a_prompt_of_its_own_id_that_stays():
    movies = domain()

    assert prompt_id_of(movies, EntityKind.GROUP) == group_prompt_id(movies)
    assert len({prompt_id(movies), user_prompt_id(movies), group_prompt_id(movies)}) == 3
    assert group_prompt_id(movies) != group_prompt_id(domain("books"))
    assert group_prompt(movies, FIELDS).prompt_id == group_prompt_id(movies)
    assert group_prompt(movies, of("Alien")).system == group_prompt(movies, FIELDS).system
    assert set(PROMPTED_KINDS) == set(EntityKind)


@pytest.mark.parametrize("attack", read_attacks(), ids=lambda attack: attack.name)
def test_a_hostile_member_stays_one_line_inside_the_fence(attack):
    entry: Json = {"title": attack.text, "year": attack.text, "genres": [attack.text]}

    try:
        prompt = group_prompt(domain(), {"members": [{"title": "Heat"}, entry]})
    except InvalidInput:
        pytest.fail("one bad title must not cost the group its prompt")

    inside = fenced(prompt.user)
    assert inside[0] == "- Heat"
    assert len(inside) <= 2
    assert all(line.startswith("- ") for line in inside)
    assert prompt.user.count(FENCE_OPENS) == prompt.user.count(FENCE_CLOSES) == 1
    assert len(prompt.user.splitlines()) == len(inside) + 3
    assert not any(mark in "".join(inside) for mark in ("<", ">", "[INST]", "[SYSTEM]", "\x00"))
    assert max(map(len, inside)) < 300


@given(
    st.dictionaries(
        st.sampled_from(["members", "title", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["title", "year", "genres"]), inner, max_size=3)
            ),
            max_leaves=12,
        ),
        max_size=3,
    )
)
def test_any_request_makes_a_bounded_prompt_or_none(fields):
    movies = domain()
    try:
        prompt = group_prompt(movies, fields)
    except InvalidInput:
        return

    inside = fenced(prompt.user)
    assert 1 <= len(inside) <= MAX_MEMBERS
    assert sum(len(line.encode()) + 1 for line in inside) <= movies.max_fields_bytes


def test_a_long_list_ends_with_what_still_fits():
    titles = [f"{n} " + "é" * 200 for n in range(MAX_MEMBERS)]
    small = load_domain("products", factors=("genre",), max_factor_chars=200, max_tokens=200)

    inside = fenced(group_prompt(small, of(*titles)).user)

    assert inside
    assert sum(len(line.encode()) + 1 for line in inside) <= small.max_fields_bytes


# ---- requests ------------------------------------------------------------------------------


def test_a_request_about_a_group_holds_its_exemplars_under_the_time_as_version():
    request = group_request(cut(), 0, 1_700)

    assert request.entity == GROUP
    assert (request.kind, request.version) == (RequestKind.REFRESH, 1_700)
    assert request.fields == FIELDS
    assert request.content_fingerprint == content_fingerprint(FIELDS)
    assert (request.requested_at_ms, request.event_time_ms) == (1_700, 1_700)
    assert KnowledgeRequest.decode(request.encode()) == request
    assert group_prompt(domain(), request.fields)


# ---- recorded answers ----------------------------------------------------------------------


async def test_a_recorded_answer_about_a_group_is_put_together_from_its_members():
    recorded = {
        "1": {"genre": "heist thriller, cat and mouse"},
        "2": {"genre": "spy thriller with car chases"},
        "3": {"genre": "toy comedy"},
    }
    writer = RecordedWriter(recorded, model="m")
    request = group_request(cut(), 0, 1)

    answer = await writer.write(group_prompt(domain(), request.fields), request, priority=0)

    assert answer.factors == {
        "genre": "heist thriller; spy thriller with car chases; cat and mouse"
    }
    with pytest.raises(Rejected, match="no_answer"):
        await RecordedWriter({}, model="m").write(
            group_prompt(domain(), request.fields), request, priority=0
        )
