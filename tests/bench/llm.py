"""The knowledge lane with a real language model: tokens a second, latency added, backfill's cost.

A real lane process on the real broker, with vLLM and its small model on this machine's processor,
held against calls of the same prompts without any lane, in turns. See llm_writer for what becomes
of the answers. Both sides have a prefix cache of their own at the server (by salt), so that neither
finds there what the other has just asked.
"""

import json
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from deploy.demo.language_model import LanguageModel
from schemas.errors import ConfigurationError
from tests.bench.llm_backfill import measure_backfill
from tests.bench.llm_bare import BareCaller
from tests.bench.llm_rig import PREFIX, Rig, deploy, lane
from tests.bench.llm_traffic import AnswerWatch, Requests, subjects
from tests.bench.llm_writer import CALLS_FILE
from tests.bench.pairs import Bound, alternately, percentile, ratio, rounded
from tests.bench.report import Row, Section
from tests.bench.workbench import SectionSkippedError, Workbench
from workers.knowledge.load_domain import load_domain
from workers.knowledge.vllm_pages import ServerFigures

THROUGHPUT_TARGET = 0.95
ADDED_MS_TARGET = 10.0

FACTORS = ("people", "genre")
MAX_FACTOR_CHARS = 120
MAX_TOKENS = 80
"""Short answers: more of them in the time there is, and the lane's part of each is the larger."""

_READY_SECONDS = 300.0


def run(bench: Workbench) -> Section:
    """Measure it; raises SectionSkippedError where vLLM is not installed."""
    section = Section()
    domain = load_domain(
        "movies", factors=FACTORS, max_factor_chars=MAX_FACTOR_CHARS, max_tokens=MAX_TOKENS
    )
    try:
        model = LanguageModel(bench.folder / "llm")
    except ConfigurationError as error:
        raise SectionSkippedError(str(error)) from error
    with ExitStack() as running:
        running.enter_context(model)
        deployment = deploy(bench)
        bench.say("waiting for the vLLM server")
        model.await_ready(timeout_seconds=_READY_SECONDS)
        kafka = bench.bootstrap_servers
        rig = Rig(
            bench,
            model,
            domain,
            running.enter_context(Requests(kafka, PREFIX)),
            running.enter_context(AnswerWatch(kafka, PREFIX)),
            running.enter_context(BareCaller(model, domain)),
            subjects("llm", domain),
        )
        calls_file = bench.folder / "llm-calls.jsonl"
        variables = deployment | _lane_variables(model)
        with lane(rig, "knowledge", variables | {CALLS_FILE: str(calls_file)}):
            # The first calls are slow, and fill each side's prefix cache.
            rig.through_the_lane(rig.films(4))
            rig.bare.ask_all(rig.films(rig.model.max_num_seqs), in_flight=rig.model.max_num_seqs)
            _throughput(rig, section)
            _latency(rig, section, calls_file)
            measure_backfill(rig, section, variables | _OF_THE_BACKLOG)
    section.facts["model"] = model.model
    return section


def _lane_variables(model: LanguageModel) -> dict[str, str]:
    return {
        **model.variables,
        "FRESHET_KNOWLEDGE__WRITER": "tests.bench.llm_writer:StandInWriter",
        "FRESHET_KNOWLEDGE__VLLM_CACHE_SALT": "lane",
        "FRESHET_KNOWLEDGE__FACTORS": json.dumps(FACTORS),
        "FRESHET_KNOWLEDGE__MAX_FACTOR_CHARS": str(MAX_FACTOR_CHARS),
        "FRESHET_KNOWLEDGE__MAX_TOKENS": str(MAX_TOKENS),
        # The likeliest word, always: both sides then write the same.
        "FRESHET_KNOWLEDGE__TEMPERATURE": "0",
        # The way out of overload writes no answers.
        "FRESHET_KNOWLEDGE__OVERLOAD_SECONDS": "86400",
    }


_OF_THE_BACKLOG = {
    "FRESHET_KNOWLEDGE__WRITER": "vllm",
    "FRESHET_KNOWLEDGE__REJECTED_RETRY_ATTEMPTS": "0",
}
"""It is load alone, so its answers are the model's, and what is refused is done with."""


def _throughput(rig: Rig, section: Section) -> None:
    """Add output tokens a second, of the lane and of the server alone at its best."""
    bench, count = rig.bench, 2 * rig.model.max_num_seqs
    scanned: dict[int, float] = {}
    for in_flight in (rig.model.max_num_seqs, count):
        asked, before = rig.films(count), rig.model.figures()
        seconds = rig.bare.ask_all(asked, in_flight=in_flight)
        scanned[in_flight] = _written(rig, before) / seconds
        bench.say(f"llm: bare, {in_flight} in flight: {scanned[in_flight]:.0f} tokens/s")
    best = max(scanned, key=lambda in_flight: scanned[in_flight])
    rates: dict[str, list[float]] = defaultdict(list)
    looked_up = found = tokens = 0
    asked = []
    for number, contender in alternately(("lane", "bare"), bench.rounds):
        if number * 2 == sum(map(len, rates.values())):
            asked = rig.films(count)
        before = rig.model.figures()
        if contender == "lane":
            seconds = rig.through_the_lane(asked)
        else:
            seconds = rig.bare.ask_all(asked, in_flight=best)
        figures = rig.model.figures().since(before)
        rates[contender].append(figures.generated_tokens / seconds)
        if contender == "lane":
            looked_up, found = looked_up + figures.looked_up, found + figures.found
            tokens += figures.generated_tokens
        bench.say(
            f"llm: throughput, round {number + 1}/{bench.rounds} {contender}: "
            f"{rates[contender][-1]:.0f} tokens/s"
        )
    section.add(
        "bare_tokens_per_second",
        {"best_in_flight": best, "scanned": {str(n): rounded(r) for n, r in scanned.items()}}
        | {"median": rounded(median(rates["bare"]))},
        f"bare server, {best} in flight",
        f"{median(rates['bare']):,.0f} tokens/s",
    )
    answers = count * bench.rounds
    section.add(
        "lane_tokens_per_second",
        {"median": rounded(median(rates["lane"])), "tokens_per_answer": rounded(tokens / answers)},
        f"knowledge lane, answers of {tokens / answers:.0f} tokens",
        f"{median(rates['lane']):,.0f} tokens/s",
    )
    section.add_ratio(
        "lane_to_bare",
        ratio(rates["lane"], rates["bare"], target=THROUGHPUT_TARGET),
        "  lane / bare, output tokens/s",
    )
    hit_rate = ServerFigures(looked_up=looked_up, found=found).prefix_hit_rate
    section.add(
        "prefix_hit_rate",
        {"share": rounded(hit_rate), "prompt_tokens": round(looked_up / answers)},
        f"prefix cache, prompts of {looked_up / answers:.0f} tokens",
        f"{hit_rate:.0%} of them were there",
    )


def _written(rig: Rig, before: ServerFigures) -> int:
    return rig.model.figures().since(before).generated_tokens


def _latency(rig: Rig, section: Section, calls_file: Path) -> None:
    """Add what the lane adds to an answer while it has nothing else to do.

    Judged by what of an answer's time lies outside its own call: two calls of the same prompt
    differ by more than that.
    """
    pairs = rig.bench.size(12, 8)
    through, alone = [], []
    calls_file.write_text("")
    for number, subject in enumerate(rig.films(pairs)):
        for contender in (("lane", "bare"), ("bare", "lane"))[number % 2]:
            if contender == "lane":
                through.append(rig.after_acknowledgement(subject) * 1000)
            else:
                alone.append(rig.bare.ask_all([subject], in_flight=1) * 1000)
    calls = [float(line) * 1000 for line in calls_file.read_text().splitlines()]
    section.add_latency("bare_call", alone, "one bare call at a time")
    section.add_latency("lane_answer", through, "request acknowledged to answer on `knowledge`")
    added = [whole - call for whole, call in zip(through, calls, strict=True)]
    section.add_latency("added", added, "  of that outside its own call: added by the lane")
    typical = percentile(added, 0.5)
    section.facts["added_ms"] = {
        "median": rounded(typical),
        Bound.AT_MOST.value: ADDED_MS_TARGET,
        "met": typical <= ADDED_MS_TARGET,
        "median_of_pairs": rounded(
            median(ours - theirs for ours, theirs in zip(through, alone, strict=True))
        ),
    }
    section.rows.append(
        Row(
            "  median of that",
            f"{typical:.1f} ms",
            f"≤ {ADDED_MS_TARGET:g} ms",
            typical <= ADDED_MS_TARGET,
        )
    )
