"""`freshet produce --check`: every line is judged, nothing is sent."""

import json

import pytest

from tests.cli_runner import run_freshet

GOOD = {"type": "item.upserted", "item_id": "1", "version": 1, "item": {"title": "Heat"}}


def _write(path, *lines) -> str:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts))
    return str(path)


def test_invalid_lines_are_named_with_number_and_reason_and_fail_the_command(
    capsys, tmp_path
) -> None:
    file = _write(
        tmp_path / "events.jsonl",
        GOOD,
        "",
        "{oops",
        {**GOOD, "version": -1},
        {**GOOD, "item": {"title": " "}},
        {"type": "item.removed", "item_id": "2", "version": 3},
    )

    ran = run_freshet(capsys, "produce", file, "--check")

    assert ran.code == 1
    assert [line.split(":")[1:3] for line in ran.err.splitlines()] == [
        [" line 3", " not_json"],
        [" line 4", " bad_version"],
        [" line 5", " empty_title"],
    ]
    assert "5 lines: 2 valid, 3 invalid" in ran.out


def test_a_file_may_mix_catalogue_and_behaviour(capsys, tmp_path) -> None:
    view = {"type": "user.behaviour", "user_id": "7", "event_id": "e1", "item_id": "1"}
    file = _write(
        tmp_path / "events.jsonl",
        GOOD,
        {**view, "action": "view"},
        {**view, "action": "hum"},
        {"type": "user.erased", "user_id": "7"},
    )

    ran = run_freshet(capsys, "produce", file, "--check")

    assert ran.code == 1
    assert ran.err.startswith("freshet: line 3: unknown_action: 'hum' is none of click, ")
    assert "4 lines: 3 valid, 1 invalid" in ran.out


def test_a_file_of_valid_lines_passes(capsys, tmp_path) -> None:
    file = _write(tmp_path / "events.jsonl", GOOD)

    ran = run_freshet(capsys, "produce", file, "--check", "--json")

    assert ran.code == 0
    assert json.loads(ran.out)["invalid"] == 0


def test_only_the_first_problems_are_shown_but_all_are_counted(capsys, tmp_path) -> None:
    file = _write(tmp_path / "events.jsonl", *["[]"] * 50)

    ran = run_freshet(capsys, "produce", file, "--check")

    assert "50 invalid" in ran.out
    assert "30 more problems not shown" in ran.err
    assert len(ran.err.splitlines()) == 21


@pytest.mark.parametrize(("version", "code"), [(7, 0), ("7", 1), (None, 1)])
def test_plain_items_take_their_version_from_the_named_field(
    capsys, tmp_path, version, code
) -> None:
    file = _write(tmp_path / "films.jsonl", {"film": 42, "v": version, "title": "Heat"})

    ran = run_freshet(
        capsys, "produce", file, "--check", "--id-field", "film", "--version-field", "v"
    )

    assert ran.code == code
