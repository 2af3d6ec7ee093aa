"""The LEARN space of the demo: trained once on what was known before the summer, then kept.

It is what this command trains, in a process of the demo's own so that it can tell how far it is:

    freshet train learn --data deploy/demo/data --until 2013-06-04 --out learn

The trained space takes 29 MB, so it is no part of the repository. It lies in the demo's cache under
a digest of its data and options, and is trained anew when either is another.
"""

import asyncio
import json
import shutil
from hashlib import sha256
from pathlib import Path

from deploy.demo.films import CATALOG_FILE, DATA_DIR, KNOWLEDGE_FILE, RATINGS_FILE, SUMMER_STARTS_MS
from schemas.errors import ConfigurationError
from streams.learn_training import LearnJob, train
from streams.settings import Settings
from workers.adaptors.space_files import load_space
from workers.training.learn_options import LearnOptions
from workers.training.train_learn import EpochReport

SPACE = "learn"
OPTIONS = LearnOptions()

_DIGEST_CHARACTERS = 16


def put_learned_space(settings: Settings) -> None:
    """Put the space into the spaces directory, from the cache or by training it."""
    kept = settings.encode.cache_dir / f"{SPACE}-{_digest(OPTIONS)}"
    if not _is_whole(kept):
        shutil.rmtree(kept, ignore_errors=True)
        _train(settings, kept)
    target = settings.encode.spaces_dir / SPACE
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(kept / SPACE, target)


def _train(settings: Settings, kept: Path) -> None:
    encode = settings.encode.model_copy(update={"spaces_dir": kept})
    into = settings.model_copy(update={"encode": encode})
    job = LearnJob(DATA_DIR, SPACE, OPTIONS, until_ms=SUMMER_STARTS_MS)
    print("reading films and ratings", flush=True)
    asyncio.run(train(into, job, progress=_tell, on_epoch=_tell_epoch))


def _is_whole(kept: Path) -> bool:
    try:
        load_space(kept, SPACE)
    except ConfigurationError:
        return False  # not there, cut short, or of another version of the code
    return True


def _digest(options: LearnOptions) -> str:
    digest = sha256(json.dumps([options.declared(), SUMMER_STARTS_MS], sort_keys=True).encode())
    for file in (CATALOG_FILE, KNOWLEDGE_FILE, RATINGS_FILE):
        digest.update(sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def _tell(what: str, done: int, total: int) -> None:
    print(f"{what}: {done:,} of {total:,}" if total else what, flush=True)


def _tell_epoch(report: EpochReport) -> None:
    figures = report.figures
    found = "" if figures is None else f": finds {figures.recall:.1%} of what is held out"
    print(f"{report.stage}, after {report.epochs} epochs{found}", flush=True)
