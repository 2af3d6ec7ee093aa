"""Hostile catalogue texts: fenced, defused and bounded in every prompt, and not obeyed."""

import re

import pytest

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json
from tests.quality.attacks import Attack, read_attacks
from tests.quality.labelled import domain_of
from workers.knowledge.load_domain import domain_names
from workers.knowledge.prompts import FENCE_CLOSES, FENCE_OPENS, Domain, Prompt, item_prompt
from workers.knowledge.quality import check
from workers.knowledge.user_prompt import user_prompt
from workers.knowledge.writer import Answer

ATTACKS = read_attacks()
OBEYED = [attack for attack in ATTACKS if attack.obeyed]
KEY = EntityKey.item("42")
GOOD = {
    "genre": "chamber mystery at sea, slow-burning family drama with folk-horror shading",
    "people": "first feature of Mara Lindqvist, carried by two stage actors",
    "theme": "isolation and inheritance; what a father hides to keep his child near",
    "mood": "salt-grey, hushed and tense, lit by a single lamp",
    "acclaim": "festival favourite for its sound design, modest at the box office",
    "audience": "patient viewers who like The Witch, Breaking the Waves and Persona",
}
CONTROL_TOKEN = re.compile(r"[<>＜＞]|\[/?\w?[A-Z_]{3,}\]|［")

parametrized = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def fields_with(attack: Attack) -> dict[str, Json]:
    return {"title": attack.text, "directors": ["Mara Lindqvist"], "plot": attack.text}


def taste_with(attack: Attack) -> dict[str, Json]:
    entry: Json = {"title": attack.text, "genres": [attack.text], "signal": attack.text}
    return {"liked": [entry, {"title": "Heat"}], "disliked": [entry]}


def fenced(prompt: Prompt) -> list[str]:
    lines = prompt.user.split("\n")
    return lines[lines.index(FENCE_OPENS) + 1 : lines.index(FENCE_CLOSES)]


def assert_defused(prompt: Prompt, domain: Domain, harmless: Prompt) -> None:
    inside = "\n".join(fenced(prompt))
    assert prompt.user.count(FENCE_OPENS) == prompt.user.count(FENCE_CLOSES) == 1
    assert len(inside.encode()) <= domain.max_fields_bytes
    assert CONTROL_TOKEN.search(inside) is None
    assert all(line.isprintable() for line in fenced(prompt))
    # Whatever stands in the fence, the words around it stay.
    assert prompt.system == harmless.system
    assert prompt.user.replace(inside, "") == harmless.user.replace("\n".join(fenced(harmless)), "")


def test_the_set_is_large_and_tries_many_things():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 40
    assert len({attack.kind for attack in ATTACKS}) >= 8
    assert len(OBEYED) >= 40


@parametrized
@pytest.mark.parametrize("name", domain_names())
def test_an_attack_in_an_item_stays_fenced_defused_and_bounded(attack, name):
    domain = domain_of(name)

    prompt = item_prompt(domain, KEY, fields_with(attack))

    assert fenced(prompt)[0].startswith("title: ")
    assert len(fenced(prompt)) <= len(fields_with(attack))
    assert_defused(prompt, domain, item_prompt(domain, KEY, {"title": "Heat"}))


@parametrized
@pytest.mark.parametrize("name", domain_names())
def test_an_attack_among_a_users_titles_stays_fenced_defused_and_bounded(attack, name):
    domain = domain_of(name)

    prompt = user_prompt(domain, taste_with(attack))

    assert [line[:2] for line in fenced(prompt)] == ["li", "- ", "- ", "di", "- "]
    assert "- Heat" in fenced(prompt)
    assert_defused(prompt, domain, user_prompt(domain, {"liked": [{"title": "Heat"}]}))


@pytest.mark.parametrize("attack", OBEYED, ids=lambda attack: attack.name)
def test_an_answer_that_obeys_is_refused(attack):
    answer = Answer(GOOD | dict(attack.obeyed or {}), 0, 0, "")
    domain = domain_of("movies")

    assert check(answer, fields_with(attack), domain, EntityKind.ITEM) is not None
    assert check(answer, taste_with(attack), domain, EntityKind.USER) is not None


@parametrized
def test_an_answer_that_does_not_obey_passes(attack):
    answer = Answer(GOOD, 0, 0, "")
    domain = domain_of("movies")

    assert check(answer, fields_with(attack), domain, EntityKind.ITEM) is None
    assert check(answer, taste_with(attack), domain, EntityKind.USER) is None
