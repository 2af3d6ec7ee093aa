"""What a language model was asked, what that cost, and what came of it, over all lanes. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deploy.demo.lane_processes import CallCost, LaneFigures


@dataclass(frozen=True, slots=True)
class LlmCounts:
    """Calls made, and calls that a consumer which answers each event with one would have made.

    By fingerprint: newer versions and duplicates that say nothing new. By coalescing: versions
    absorbed by a newer one before anybody was asked. By sharing: items that had
    a call in common.
    `costs` are by the reason of the calls, `refused` counts requests without a usable answer by
    what was wrong with it, `accepted` those with one.
    """

    calls: int = 0
    saved_fingerprint: int = 0
    saved_coalesced: int = 0
    saved_shared: int = 0
    accepted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, CallCost] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts that were answered."""
        return sum(cost.prompt_tokens for cost in self.costs.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(cost.completion_tokens for cost in self.costs.values())


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What a real language model did while the back catalogue was loaded.

    `prefix_hit_rate` is the share of prompt tokens that its prefix cache held.
    """

    model: str
    tokens_per_second: float
    prefix_hit_rate: float

    def to_json(self) -> dict[str, object]:
        """Return what the JSON object says of it."""
        return {
            "model": self.model,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "prefix_hit_rate": round(self.prefix_hit_rate, 4),
        }


def llm_counts(lanes: Mapping[str, LaneFigures]) -> LlmCounts:
    """Return the counts of all lanes together."""
    items = lanes.get("items", LaneFigures("items")).outcomes
    saved: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for figures in lanes.values():
        saved.update(figures.saved)
        refused.update(figures.rejected)
    return LlmCounts(
        calls=sum(figures.calls for figures in lanes.values()),
        saved_fingerprint=(
            saved["fingerprint"] + items.get("confirmed", 0) + items.get("unchanged", 0)
        ),
        saved_coalesced=saved["coalesced"] + items.get("superseded", 0),
        saved_shared=saved["shared"],
        accepted=sum(figures.accepted for figures in lanes.values()),
        refused=dict(sorted(refused.items())),
        costs=_together(figures.costs for figures in lanes.values()),
    )


def _together(lanes: Iterable[Mapping[str, CallCost]]) -> dict[str, CallCost]:
    total: dict[str, CallCost] = {}
    for costs in lanes:
        for reason, cost in costs.items():
            total[reason] = total.get(reason, CallCost()).plus(cost)
    return dict(sorted(total.items(), key=lambda entry: (-entry[1].calls, entry[0])))
