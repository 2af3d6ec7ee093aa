"""Which folder may import what: schemas <- workers <- streams, and each heavy library in one place.

Parses imports; nothing is executed. The failing message names the file and the import.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Folder -> the packages of ours it may import.
LAYERS = {
    "schemas": {"schemas"},
    "workers": {"schemas", "workers"},
    "streams": {"schemas", "workers", "streams"},
}

# Library -> where it may be imported. What is not named may be imported anywhere.
CONFINED = {
    "faust": ("streams/faust_runtime", "streams/assembly.py", "streams/apps.py"),
    "mode": ("streams/faust_runtime",),
    "torch": (
        "workers/encoding",
        "workers/adaptors",
        "workers/grouping",
        "workers/evaluation",
        "workers/rankers",
        "workers/training",
    ),
    "sentence_transformers": ("workers/encoding",),
    "redis": ("workers/live",),
    "httpx": ("workers/knowledge", "streams/doctor"),
    "matplotlib": ("workers/evaluation",),
    "typer": ("streams/cli",),
}

# Lanes know workers through ports of their own; these modules are pure and may be shared.
PURE_WORKERS = {
    "workers.grouping.groups",
    "workers.knowledge.group_prompt",
    "workers.knowledge.preference_gate",
    "workers.knowledge.prompts",
    "workers.knowledge.select_prompt",
    "workers.knowledge.shared_prompt",
    "workers.knowledge.titles",
    "workers.knowledge.user_prompt",
    "workers.knowledge.writer",
    "workers.live.entity_records",
    "workers.live.history_records",
    "workers.live.items_read",
    "workers.live.seen_record",
    "workers.towers.significance",
    "workers.towers.user_tower",
}

# The functional core: neither I/O nor frameworks nor clocks.
CORE_FORBIDS = {"faust", "httpx", "redis", "prometheus_client", "aiokafka", "kafka", "time"}


def _sources(folder: str) -> Iterator[Path]:
    return (ROOT / folder).rglob("*.py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("folder", LAYERS)
def test_layers_import_only_what_is_below_them(folder: str) -> None:
    ours = set(LAYERS) | {"tests", "deploy"}
    for path in _sources(folder):
        for name in _imports(path):
            package = name.partition(".")[0]
            allowed = package not in ours or package in LAYERS[folder]
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", CONFINED)
def test_heavy_libraries_stay_in_their_folder(library: str) -> None:
    for folder in LAYERS:
        for path in _sources(folder):
            where = path.relative_to(ROOT).as_posix()
            for name in _imports(path):
                allowed = name.partition(".")[0] != library or where.startswith(CONFINED[library])
                assert allowed, f"{where} imports {name}"


def test_the_engine_core_is_pure() -> None:
    for path in _sources("streams/engine"):
        if path.name == "pipeline.py":
            continue
        for name in _imports(path):
            package = name.partition(".")[0]
            assert package not in CORE_FORBIDS, f"{path.relative_to(ROOT)} imports {name}"
            assert not name.startswith("workers"), f"{path.relative_to(ROOT)} imports {name}"


def test_lanes_know_workers_only_through_ports_and_pure_records() -> None:
    for path in _sources("streams/lanes"):
        for name in _imports(path):
            impure = name.startswith("workers") and name not in PURE_WORKERS
            assert not impure, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("workers.live.live_vectors", ("torch", "faust", "pydantic", "kafka", "aiokafka")),
        ("streams.producers", ("torch", "faust", "redis", "aiokafka", "typer")),
        ("streams.cli.main", ("torch", "faust", "aiokafka", "kafka")),
    ],
)
def test_an_entry_point_loads_nothing_it_does_not_need(
    module: str, absent: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([n for n in {absent!r} if n in sys.modules])"

    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "[]", f"{module} loads {loaded.stdout.strip()}"
