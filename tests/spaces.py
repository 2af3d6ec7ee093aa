"""Spaces for a test deployment: the raw space, and a small parts-pca fitted on made-up items."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from streams import spaces_admin
from streams.settings import Settings
from tests.fakes.answers import factor_text
from tests.feed import TITLES

DIM = 32


def fit_spaces(settings: Settings, directory: Path) -> None:
    """Write the raw space and a small `parts-pca` below `directory` (`settings` point there)."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = [f"f{index:03d}" for index in range(64)]
    catalog = [
        {"item_id": id_, "title": f"{TITLES[index % 4]} {id_}", "genres": ["Drama"]}
        for index, id_ in enumerate(ids)
    ]
    knowledge = [{"item_id": id_, "knowledge": _answer(settings, id_)} for id_ in ids]
    asyncio.run(
        spaces_admin.fit(
            settings,
            name="parts-pca",
            catalog=_write_lines(directory / "catalog.jsonl", catalog),
            knowledge=_write_lines(directory / "knowledge.jsonl", knowledge),
            dim=DIM,
        )
    )


def register_spaces(settings: Settings) -> None:
    """Register both spaces; as the first ever, `parts-pca` is what rankers read from the start."""
    asyncio.run(spaces_admin.create(settings, "parts-pca"))


def _answer(settings: Settings, id_: str) -> dict[str, str]:
    subject = f"item:{id_} as of version 1"
    return {factor: factor_text(factor, subject) for factor in settings.knowledge.factors}


def _write_lines(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
