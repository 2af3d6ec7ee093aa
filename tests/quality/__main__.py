"""Prints how the quality gate judges the labelled answers.

Example: python -m tests.quality --wrong

A table of precision and recall: of refusing at all, and reason by reason, on the half that the
rules were set on and on the half that they were not. `found` counts how often the gate names a
reason, `refused` is the share of the answers with that fault that are refused for any reason. The
last line is the same as one JSON object.
"""

import argparse
import sys
from collections.abc import Sequence

import orjson
from rich.console import Console
from rich.table import Table

from schemas.reasons import Rejection
from tests.quality.labelled import Half
from tests.quality.scores import Judged, Score, in_half, judge_all, score_of

REASONS: tuple[Rejection | None, ...] = (None, *Rejection)
"""None stands for refusing at all."""


def main() -> int:
    """Print the table and the JSON object; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--wrong", action="store_true", help="list what is misjudged in the half rules are set on"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    args = parser.parse_args()
    judged = judge_all()
    scores = {half: _scores(in_half(judged, half)) for half in Half}
    console = Console()
    if not args.json:
        console.print(_table(scores))
    if args.wrong:
        for one in in_half(judged, Half.TUNE):
            _print_if_misjudged(console, one)
    sys.stdout.write(orjson.dumps(_facts(scores)).decode() + "\n")
    return 0


def _scores(judged: Sequence[Judged]) -> dict[Rejection | None, Score]:
    scores = {code: score_of(judged, code) for code in REASONS}
    return {code: score for code, score in scores.items() if score.labelled or score.found}


def _table(scores: dict[Half, dict[Rejection | None, Score]]) -> Table:
    table = Table(title="The quality gate on labelled answers", header_style="bold")
    table.add_column("reason")
    for half in Half:
        for name in ("labelled", "found", "precision", "recall", "refused"):
            table.add_column(f"{half.value}\n{name}", justify="right")
    for code in REASONS:
        if any(code in of_half for of_half in scores.values()):
            cells = [cell for half in Half for cell in _cells(scores[half].get(code))]
            table.add_row(_name(code), *cells)
    return table


def _cells(score: Score | None) -> tuple[str, ...]:
    if score is None:
        return ("0", "0", "", "", "")
    return (
        str(score.labelled),
        str(score.found),
        f"{score.precision:.2f}" if score.found else "",
        f"{score.recall:.2f}" if score.labelled else "",
        f"{score.refused / score.labelled:.2f}" if score.labelled else "",
    )


def _facts(
    scores: dict[Half, dict[Rejection | None, Score]],
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        half.value: {
            _name(code): {
                "labelled": score.labelled,
                "found": score.found,
                "precision": round(score.precision, 3),
                "recall": round(score.recall, 3),
                "refused": score.refused,
            }
            for code, score in of_half.items()
        }
        for half, of_half in scores.items()
    }


def _print_if_misjudged(console: Console, one: Judged) -> None:
    labels, found = one.row.labels, frozenset(one.found)
    if labels == found:
        return
    verdict = "refused" if found else "ACCEPTED" if labels else ""
    missed, added = (" ".join(sorted(codes)) for codes in (labels - found, found - labels))
    text = f"{one.row.id}: {verdict}; missed: {missed or '-'}; added: {added or '-'}\n"
    console.print(text + "    " + one.row.raw[:500], markup=False, highlight=False, soft_wrap=True)


def _name(code: Rejection | None) -> str:
    return "refused at all" if code is None else code.value


if __name__ == "__main__":
    sys.exit(main())
