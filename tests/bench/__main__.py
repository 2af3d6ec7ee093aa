"""Measures Freshet against hand-written loops on a Kafka and a Redis of its own.

Prints a table and, as its last line, one JSON object with the keys plumbing, encode, vectors,
freshness, behaviour, llm, burst, read, store and memory (null for a section that did not run).
Progress goes to standard error; the exit code is 1 when a section failed. A target missed is no
failure: it depends on the machine; neither is a section skipped for want of what it measures.

Example: python -m tests.bench --only plumbing,read --quick
"""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from deploy.local.server_process import ServerFailedError
from deploy.local.stack import LocalStack
from schemas.errors import FreshetError
from streams.logs import configure, silence_third_parties
from tests.bench.pairs import MIN_PAIRS
from tests.bench.report import SECTIONS, Section, json_line, table
from tests.bench.workbench import BenchFailedError, SectionSkippedError, Workbench


def main() -> int:
    args = _arguments()
    configure("warning", "console")
    silence_third_parties()
    progress = Console(stderr=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="freshet-bench-") as folder,
            LocalStack(Path(folder) / "stack") as stack,
        ):
            bench = Workbench(stack, Path(folder), progress, args.rounds, args.quick)
            # Other work on the machine shows in every figure that follows.
            bench.say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start")
            found, failed = _run(args.only, bench)
    except ServerFailedError as error:
        progress.print(str(error), style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    if not args.json:
        Console().print(table(found))
    print(json_line(found))
    return 1 if failed else 0


def _run(names: tuple[str, ...], bench: Workbench) -> tuple[dict[str, Section], bool]:
    """Return what the sections found, and whether one failed; one that is skipped did not."""
    found: dict[str, Section] = {}
    failed = False
    for name in names:
        bench.say(f"[bold]{name}[/]")
        section = importlib.import_module(f"tests.bench.{name}")
        try:
            found[name] = section.run(bench)
        except SectionSkippedError as error:
            text = f"{name}: skipped: {error}"
            bench.console.print(text, style="yellow", markup=False, highlight=False)
        except (BenchFailedError, ServerFailedError, FreshetError) as error:
            text = f"{name}: {error}"
            bench.console.print(text, style="red", markup=False, highlight=False)
            failed = True
    return found, failed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=_sections,
        default=SECTIONS,
        metavar="A,B",
        help=f"sections to run: {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes, noisier figures")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    parser.add_argument(
        "--rounds",
        type=_rounds,
        default=MIN_PAIRS,
        metavar="N",
        help=f"pairs of runs behind every ratio (default and least: {MIN_PAIRS})",
    )
    return parser.parse_args()


def _sections(text: str) -> tuple[str, ...]:
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}"
        )
    return tuple(name for name in SECTIONS if name in names)


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_PAIRS:
        raise argparse.ArgumentTypeError(f"a whole number from {MIN_PAIRS} up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
