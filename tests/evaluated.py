"""A small catalogue, what was recorded about it, and who liked what: material for evaluations."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.fakes.answers import factor_text
from tests.space_builders import json_lines

GENRES = ("Drama", "Crime", "Horror")


def evaluation_files(
    directory: Path, *, factors: tuple[str, ...], items: int = 40, cold: int = 12, users: int = 24
) -> Mapping[str, Path]:
    """Write catalog, knowledge, train, test and ratings; return their paths by name.

    The last `cold` items have no training interaction; two items have no knowledge. `ratings` holds
    all of it with values and times, in which the cold items come last.
    """
    generator = np.random.default_rng(5)
    ids = [f"e{n}" for n in range(items)]
    catalog = [
        {"item_id": id_, "title": f"The Story of {id_}", "genres": [GENRES[n % 3]]}
        for n, id_ in enumerate(ids)
    ]
    knowledge = [
        {"item_id": id_, "knowledge": {factor: factor_text(factor, id_) for factor in factors}}
        for id_ in ids[2:]
    ]
    train, test, ratings = ["user_id,item_id"], ["user_id,item_id"], []
    for user in range(users):
        taste = [n for n in range(items) if n % 3 == user % 3]
        warm = [n for n in taste if n < items - cold]
        for n in generator.permutation(warm)[:8]:
            train.append(f"u{user},{ids[n]}")
            ratings.append((f"u{user}", ids[n], 6 + (n + user) % 4, 1_000 * (user + 1) + n))
        for n in taste[len(warm) :]:
            test.append(f"u{user},{ids[n]}")
            ratings.append((f"u{user}", ids[n], 8, 100_000 + 100 * user + n))
    rows = [",".join(map(str, row)) for row in ratings]
    return {
        "catalog": json_lines(directory / "catalog.jsonl", catalog),
        "knowledge": json_lines(directory / "knowledge.jsonl", knowledge),
        "train": _text(directory / "train.csv", train),
        "test": _text(directory / "test.csv", test),
        "ratings": _text(directory / "ratings.csv", ["user_id,item_id,rating,timestamp", *rows]),
    }


def _text(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
