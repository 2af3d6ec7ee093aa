"""What is sent in a burst, what was seen of it, and what the bench says about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.demo.lane_processes import LaneFigures
from schemas.entities import Stage
from streams.lanes.knowledge_stats import SHARED
from streams.settings import KnowledgeSettings
from tests.bench.pairs import MIN_PAIRS, Bound, ratio, rounded
from tests.bench.report import Row, Section
from workers.knowledge.shared_prompt import SHARED_MEMBERS

CONTENT_TARGET = 3.0
"""Times the bare encode time."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What is sent to whom. The defaults are a small model on a few cores: two answers a second.

    The run lasts `seconds` from the first event, or until all items have knowledge of their own;
    longer only while a request waits. `share_members` items at most have a call in common; a small
    model on a CPU may need longer than a call may take for twelve. With `vllm_url` the server is
    that one, and `answers_per_second` and `places` are its own business.
    """

    items: int = 1_613
    groups: int = 24
    overload_seconds: float = 10.0
    longest_wait_seconds: float = KnowledgeSettings().longest_wait_seconds
    call_seconds: float = KnowledgeSettings().call_seconds
    seconds: float = 60.0
    answers_per_second: float = 2.0
    places: int = 8
    share_members: int = SHARED_MEMBERS
    vllm_url: str = ""
    model: str = "a-model"


@dataclass(slots=True)
class Progress:
    """Seconds from the first event until every item had a vector of a stage, and until none waited.

    `settled_seconds`: every request was answered, alone or with others, or left to the backlog;
    `told_share` of the items were told something by then.
    """

    since: dict[Stage, float] = field(default_factory=dict)
    settled_seconds: float = 0.0
    told_share: float = 0.0
    stages: Sequence[Stage] = ()
    oldest_seconds: float = 0.0
    seconds: float = 0.0

    def share(self, stage: Stage) -> float:
        """Return the share of items that are at least there."""
        return sum(found >= stage for found in self.stages) / len(self.stages)


def section_of(
    burst: Burst, bare_seconds: float, progress: Progress, figures: Mapping[str, LaneFigures]
) -> Section:
    """Return the report's part about a burst that is over."""
    section = Section()
    server = burst.vllm_url or f"fake, {burst.answers_per_second:g} answers/s"
    section.add("items", burst.items, f"new items at once, {burst.groups} groups", f"{burst.items}")
    section.add("server", server, "server", server)
    section.add(
        "bare_encode_seconds", rounded(bare_seconds), "bare encode", f"{bare_seconds:.1f} s"
    )
    content = progress.since[Stage.CONTENT]
    # One burst is one pair: the report's ratios want three.
    found = ratio(
        [content] * MIN_PAIRS,
        [bare_seconds] * MIN_PAIRS,
        target=CONTENT_TARGET,
        bound=Bound.AT_MOST,
    )
    section.add("content_seconds", rounded(content), "all have content vectors", f"{content:.1f} s")
    section.facts["content_to_bare"] = {
        "ratio": rounded(found.median),
        "at_most": CONTENT_TARGET,
        "met": found.met,
    }
    section.rows.append(
        Row(
            "  to the bare encode time",
            f"{found.median:.2f}",
            f"≤ {CONTENT_TARGET:g}",
            found.met,
        )
    )
    section.add(
        "settled_seconds",
        rounded(progress.settled_seconds),
        "no request waits",
        f"{progress.settled_seconds:.1f} s",
    )
    section.add(
        "told_share",
        rounded(progress.told_share),
        "  items that were told something by then",
        f"{progress.told_share:.1%}",
    )
    deferred = figures["knowledge"].emitted.get("deferred", 0)
    section.add("deferred", deferred, "  left to the backlog untold", f"{deferred}")
    collective = progress.since.get(Stage.COLLECTIVE)
    section.add(
        "collective_seconds",
        None if collective is None else rounded(collective),
        "all are at least collective",
        "not in this time" if collective is None else f"{collective:.1f} s",
    )
    bound = burst.longest_wait_seconds + burst.call_seconds
    oldest = progress.oldest_seconds
    section.facts["oldest_request_seconds"] = rounded(oldest)
    section.rows.append(
        Row(
            f"oldest request (calls are shared after {burst.overload_seconds:g} s)",
            f"{oldest:.1f} s",
            f"≤ {bound:g}",
            oldest <= bound,
        )
    )
    calls = sum(one.calls for one in figures.values())
    costs = {
        reason: sum(one.costs[reason].calls for one in figures.values() if reason in one.costs)
        for reason in sorted({reason for one in figures.values() for reason in one.costs})
    }
    told = ", ".join(f"{count} {reason}" for reason, count in costs.items())
    section.add("calls", calls, f"calls by then ({progress.seconds:.0f} s)", f"{calls}  ({told})")
    section.facts["calls_by_reason"] = costs
    shared = costs.get(SHARED, 0)
    if shared:
        members = figures["knowledge"].saved["shared"] / shared + 1
        section.add("shared_members", rounded(members), "  items a shared call", f"{members:.1f}")
    section.add(
        "calls_per_item",
        rounded(calls / burst.items),
        "calls an item",
        f"{calls / burst.items:.2f}",
    )
    individual = progress.share(Stage.INDIVIDUAL)
    section.add(
        "individual_share", rounded(individual), "have knowledge of their own", f"{individual:.1%}"
    )
    section.facts["seconds"] = rounded(progress.seconds)
    return section
