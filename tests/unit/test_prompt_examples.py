"""The examples in the domain files: shown, part of the prompt's id, good, and never handed back."""

import json
from dataclasses import replace

import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json
from schemas.reasons import Rejection
from tests.quality.labelled import domain_of
from workers.knowledge.load_domain import domain_names, load_domain
from workers.knowledge.prompts import Domain, Example, item_prompt, prompt_id, repair_prompt
from workers.knowledge.quality import QualityGate, check
from workers.knowledge.select_prompt import prompt_about, prompt_id_of
from workers.knowledge.user_prompt import user_prompt
from workers.knowledge.writer import Answer

KEY = EntityKey.item("42")
FIELDS: dict[str, Json] = {
    "title": "Heat",
    "year": 1995,
    "genres": ["Crime", "Drama"],
    "directors": ["Michael Mann"],
    "actors": ["Al Pacino", "Robert De Niro"],
}
GOOD = {
    "genre": "Los Angeles crime epic, cop against thief",
    "people": "Michael Mann directs Pacino and De Niro in their one shared scene",
    "theme": "professionals on both sides whose work leaves no room for a home",
    "mood": "steel-blue nights, long silences, sudden gunfire",
    "acclaim": "overlooked by prize juries, studied ever since for its shootout",
    "audience": "viewers of Thief, Collateral and The Insider",
}
ALL_EXAMPLES = [(name, example) for name in domain_names() for example in domain_of(name).examples]


def examples_of(domain: Domain, kind: EntityKind) -> list[Example]:
    return [example for example in domain.examples if example.kind is kind]


def answer_of(domain: Domain, example: Example) -> Answer:
    return Answer(dict(zip(domain.factor_names, example.texts, strict=True)), 0, 0, "")


def verdict(**changes: str) -> Rejection | None:
    return check(Answer(GOOD | changes, 0, 0, ""), FIELDS, domain_of("movies"))


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("name", domain_names())
def test_every_domain_has_an_example_of_every_kind_that_is_asked_about(name, kind):
    assert examples_of(domain_of(name), kind)


def test_an_example_is_a_question_like_the_real_one_and_an_answer_of_the_schema():
    domain = domain_of("movies")

    prompt = item_prompt(domain, KEY, FIELDS)

    assert len(prompt.examples) == len(examples_of(domain, EntityKind.ITEM))
    for question, answer in prompt.examples:
        assert question.splitlines()[0] == prompt.user.splitlines()[0]
        assert question.splitlines()[-2:] == prompt.user.splitlines()[-2:]
        assert list(json.loads(answer)) == list(domain.factor_names)
        assert "\n" not in answer


def test_the_examples_are_the_same_for_every_item_and_for_a_repair():
    domain = domain_of("movies")

    one = item_prompt(domain, KEY, FIELDS)
    other = item_prompt(domain, KEY, {"title": "M"})

    assert one.examples == other.examples == repair_prompt(one, Rejection.ECHO).examples


def test_each_kind_is_shown_its_own_examples():
    domain = domain_of("movies")

    item = item_prompt(domain, KEY, FIELDS)
    user = user_prompt(domain, {"liked": [{"title": "Heat"}]})
    group = prompt_about(domain, EntityKey(EntityKind.GROUP, "1"), {"members": [{"title": "Heat"}]})

    assert len({item.examples[0], user.examples[0], group.examples[0]}) == 3


@pytest.mark.parametrize("kind", EntityKind)
def test_another_example_is_another_prompt(kind):
    domain = domain_of("movies")
    first = examples_of(domain, kind)[0]
    reworded = replace(first, texts=("another text than before", *first.texts[1:]))
    others = tuple(reworded if one is first else one for one in domain.examples)

    ids = {
        prompt_id_of(changed, kind)
        for changed in (domain, replace(domain, examples=others), replace(domain, examples=()))
    }

    assert len(ids) == 3


def test_an_example_of_users_does_not_change_what_is_asked_about_items():
    domain = domain_of("movies")
    items = tuple(examples_of(domain, EntityKind.ITEM))

    assert prompt_id(replace(domain, examples=items)) == prompt_id(domain)


def test_examples_that_break_the_bound_or_lack_a_factor_are_not_shown():
    def examples(factors: tuple[str, ...], max_factor_chars: int) -> tuple[Example, ...]:
        return load_domain(
            "movies", factors=factors, max_factor_chars=max_factor_chars, max_tokens=400
        ).examples

    every = examples(("genre", "mood"), 400)
    assert all(len(example.texts) == 2 for example in every)
    assert 0 < len(examples(("genre", "mood"), 48)) < len(every)
    assert examples(("genre", "soundtrack"), 400) == ()


@pytest.mark.parametrize(("name", "example"), ALL_EXAMPLES)
def test_an_example_would_pass_the_gate_but_for_being_one(name, example):
    domain = domain_of(name)
    answer = answer_of(domain, example)
    without = replace(domain, examples=())

    verdict = QualityGate(without).judge(answer, example.fields, example.kind)

    assert verdict is None


@pytest.mark.parametrize(("name", "example"), ALL_EXAMPLES)
def test_no_two_examples_share_a_phrase(name, example):
    domain = domain_of(name)
    others = tuple(one for one in domain.examples if one is not example)

    verdict = QualityGate(replace(domain, examples=others)).judge(
        answer_of(domain, example), example.fields, example.kind
    )

    assert verdict is None


@pytest.mark.parametrize("example", examples_of(domain_of("movies"), EntityKind.ITEM))
def test_an_example_handed_back_is_refused(example):
    answer = answer_of(domain_of("movies"), example)

    assert check(answer, FIELDS, domain_of("movies")) is not None


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (Rejection.ECHO, {"mood": "Loud, bright, always one step from panic."}),
        (Rejection.ECHO, {"mood": "a hold-up that is loud, bright and always one step from panic"}),
        (Rejection.ECHO, {"acclaim": "small in cinemas, then quoted for years on video and more"}),
        (
            Rejection.ECHO,
            {
                "theme": "a detective hunts a thief through a city of glass and light, until in the"
                " end both sides of a bank job want it back, as he does"
            },
        ),
        (Rejection.ECHO, {"people": "Dario Pellmont directs Pacino and De Niro"}),
        (Rejection.ECHO, {"audience": "viewers of Thief and of Paper Harvest"}),
    ],
)
def test_words_and_names_of_an_example_are_refused(code, changes):
    assert verdict(**changes) is code


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mood": "bright surfaces over panic, one step ahead of the law"},
        {"genre": "crime drama that never leaves the city"},
        {"audience": "patient viewers drawn to long crime stories"},
    ],
)
def test_an_answer_that_only_uses_the_same_language_passes(changes):
    assert verdict(**changes) is None


def test_what_the_fields_say_may_be_said_even_if_an_example_says_it_too():
    fields = FIELDS | {"title": "Paper Harvest"}

    answer = Answer(
        GOOD | {"audience": "viewers of Thief and earlier cuts of Paper Harvest"}, 0, 0, ""
    )

    assert check(answer, fields, domain_of("movies")) is None


# ---- what a weak model writes once examples keep it to plain phrases ---------------------------


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (Rejection.REPETITION, {"mood": "happy, happy, happy"}),
        (Rejection.REPETITION, {"genre": "comedy, comedy, comedy, comedy"}),
        (Rejection.WRONG_ENTITY, {"people": "Liam Gimble, a young man sentenced to death"}),
        (Rejection.WRONG_ENTITY, {"people": "Agnes Martin and the muse of Maria del Mar"}),
        (Rejection.INSTRUCTIONS, {"audience": "the family of my sister and some friends"}),
        (Rejection.INSTRUCTIONS, {"acclaim": "a great story that I’ve seen in cinemas"}),
        (Rejection.INSTRUCTIONS, {"audience": "you and your friends, any evening"}),
    ],
)
def test_a_loop_of_few_words_and_other_peoples_names_are_refused(code, changes):
    assert verdict(**changes) is code


@pytest.mark.parametrize(
    "changes",
    [
        {"theme": "New York, New York"},
        {"theme": "being yourself among thieves, choosing your family"},
        {"audience": "fans of World War I epics, You've Got Mail and I'm Not Scared"},
        {"people": "a veteran of television drama with two stars who had never met on screen"},
        {"people": "Mann at his peak, with Val Kilmer and Jon Voight behind the leads"},
        {"people": "Val Kilmer, Jon Voight and Ashley Judd around the two leads"},
    ],
)
def test_places_and_a_cast_beyond_the_fields_pass(changes):
    assert verdict(**changes) is None
