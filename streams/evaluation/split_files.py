"""`freshet evaluate split`: both sides of a split as files, in a directory to train from."""

import asyncio
import csv
import gzip
import io
import shutil
from math import isnan
from pathlib import Path

from schemas.errors import ConfigurationError
from streams.evaluation.cold_start_run import HoldOut, known_items, read_split
from streams.represented_catalogue import Progress, represent_catalogue, silent
from streams.settings import Settings
from workers.evaluation.interaction_files import NO_TIME, Interactions
from workers.evaluation.splits import Split

TRAIN_FILE = "interactions_train.csv.gz"
TEST_FILE = "interactions_test.csv.gz"
CATALOG_FILE = "catalog.jsonl"
KNOWLEDGE_FILE = "knowledge.jsonl"


async def write_split(
    settings: Settings,
    *,
    catalog: Path,
    knowledge: Path | None,
    train: Path,
    test: int | HoldOut,
    out: Path,
    progress: Progress = silent,
) -> dict[str, int]:
    """Write the directory `out`; return the files of interactions and how many each holds.

    Catalogue and knowledge are copied beside them, whole: what was held out has interactions only
    in the test file. Raises ConfigurationError, also when `out` is there already.
    """
    catalogue = await represent_catalogue(
        settings, catalog=catalog, knowledge=knowledge, progress=progress
    )
    known = known_items(catalogue, with_knowledge=knowledge is not None)
    split = await asyncio.to_thread(read_split, train, test, known)
    await asyncio.to_thread(_write, out, catalog, knowledge, split)
    return {TRAIN_FILE: len(split.train), TEST_FILE: len(split.test)}


def _write(out: Path, catalog: Path, knowledge: Path | None, split: Split) -> None:
    try:
        out.mkdir(parents=True)
        shutil.copyfile(catalog, out / CATALOG_FILE)
        if knowledge is not None:
            shutil.copyfile(knowledge, out / KNOWLEDGE_FILE)
        for name, side in ((TRAIN_FILE, split.train), (TEST_FILE, split.test)):
            (out / name).write_bytes(_packed(side))
    except OSError as error:
        raise ConfigurationError("--out", f"{out}: {error.strerror}") from error


def _packed(interactions: Interactions) -> bytes:
    """Return CSV, gzipped: the same bytes for the same interactions."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user_id", "item_id", "rating", "at_ms"))
    columns = (interactions.user, interactions.item, interactions.value, interactions.at_ms)
    for user, item, value, at_ms in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow(
            (user, item, "" if isnan(value) else value, "" if at_ms == NO_TIME else at_ms)
        )
    return gzip.compress(text.getvalue().encode(), mtime=0)
