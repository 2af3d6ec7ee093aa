"""Checkpoints of a training: one file, replaced whole, of the last epoch that was finished."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from schemas.errors import ConfigurationError


def save_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write the state so that a crash leaves the one before it, or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    with aside.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def load_checkpoint(path: Path, digest: str) -> dict[str, object] | None:
    """Return the state that was saved, None when there is none.

    Raises ConfigurationError for the state of another training: other data or other options.
    """
    if not path.is_file():
        return None
    # weights_only: a checkpoint is data; it must not be able to run code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or state.get("digest") != digest:
        raise ConfigurationError(
            "--resume", f"{path} is of a training with other data or options; remove it to begin"
        )
    return state
