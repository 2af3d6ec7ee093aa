"""Directories that appear whole or not at all: written aside, made durable, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def put_whole(target: Path, files: Mapping[str, bytes]) -> bool:
    """Make the directory `target` hold `files`; return False, changing nothing, if it is there.

    Parents are made. Raises OSError.
    """
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        aside.chmod(0o755)  # mkdtemp makes it private, but other lanes read it
        for name, data in files.items():
            _write_durably(aside / name, data)
        aside.rename(target)
    except OSError:
        # rename refuses a directory that holds something: somebody made this one before.
        if not target.exists():
            raise
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
