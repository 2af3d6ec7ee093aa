"""What a gate remembers: bounded, the newest kept, and never an answer against itself."""

from workers.knowledge.quality_case import Subject, stems_of
from workers.knowledge.recent_answers import RecentAnswers


def subject(title: str, *more: str) -> Subject:
    return Subject(
        names=frozenset({title}),
        title_stems=stems_of(title.split()),
        stems=stems_of([*title.split(), *more]),
    )


def filled(count: int, *, common: str = "drama") -> RecentAnswers:
    recent = RecentAnswers()
    for number in range(count):
        letters = chr(97 + number // 26) + chr(97 + number % 26)
        recent.add(subject(f"{letters}title", common), {}, overlaps=True)
    return recent


def test_the_oldest_is_forgotten_whole():
    recent = RecentAnswers(most=2)

    for title in ("first", "second", "third"):
        recent.add(subject(title, "shared"), {"mood": "grey"}, overlaps=True)

    assert len(recent) == 2
    assert recent.shared_with_another(subject("other"), stems_of(["first"])) == 0
    assert recent.shared_with_another(subject("other"), stems_of(["third"])) == 1
    assert recent.said_of_others(subject("other"), "mood", "grey") == 2


def test_a_later_answer_about_the_same_takes_the_place_of_the_earlier():
    recent = RecentAnswers()

    recent.add(subject("heat"), {"mood": "grey"}, overlaps=True)
    recent.add(subject("heat"), {"mood": "blue"}, overlaps=True)

    assert len(recent) == 1
    assert recent.said_of_others(subject("other"), "mood", "grey") == 0
    assert recent.said_of_others(subject("other"), "mood", "blue") == 1


def test_what_a_series_shares_does_not_count():
    recent = RecentAnswers()
    recent.add(subject("saw ghosts", "wannell"), {"mood": "grey"}, overlaps=True)

    sequel = subject("more ghosts")

    assert recent.said_of_others(sequel, "mood", "grey") == 0
    assert recent.shared_with_another(sequel, stems_of(["wannell"])) == 0


def test_words_of_many_subjects_are_common_once_enough_are_known():
    assert filled(10).is_rare("drama")
    assert not filled(40).is_rare("drama")
    assert filled(40).is_rare("aatitl")


def test_answers_usually_overlap_only_where_that_was_seen():
    recent = filled(31)
    assert not recent.answers_usually_overlap()

    recent.add(subject("one more"), {}, overlaps=True)
    assert recent.answers_usually_overlap()

    for _ in range(12):
        recent.add(subject("foreign"), {}, overlaps=False)
    assert not recent.answers_usually_overlap()


def test_an_answer_with_other_faults_says_nothing_of_overlap():
    recent = filled(32)

    for _ in range(50):
        recent.add(subject("garbled"), {}, overlaps=None)

    assert recent.answers_usually_overlap()
