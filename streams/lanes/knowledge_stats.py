"""What a knowledge lane counts since its start: calls and tokens by why they were made, and saved.

Facts for the metrics page; nothing decides by them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

REPAIR = "repair"
"""The reason of a second call, after an answer that the gate refused."""

GROUP = "group"
"""The reason of a call about a group, whatever kind of request it came from."""

SHARED = "shared"
"""The reason of a call about several items of a group at once."""

GAVE_WAY = "gave_way"
"""Stands for the reason of a call that ended for others' sake, and is made again later: it has no
answer, and what the server wrote of one is counted nowhere."""


@dataclass(slots=True)
class Cost:
    """What calls of one reason cost so far; a call counts when it ends."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class KnowledgeStats:
    """Counters since the start; `costs` by reason, `rejected` by Rejection value.

    The reason of a first call is the kind of the request, GROUP or SHARED; of a second one, REPAIR;
    of one that ended unanswered for others' sake, GAVE_WAY.
    `saved_shared` counts the items of shared calls that were answered, but for one a call.
    """

    costs: defaultdict[str, Cost] = field(default_factory=lambda: defaultdict(Cost))
    saved_fingerprint: int = 0
    saved_coalesced: int = 0
    saved_shared: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """Calls of every reason."""
        return sum(cost.calls for cost in self.costs.values())

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts that were answered."""
        return sum(cost.prompt_tokens for cost in self.costs.values())

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return sum(cost.completion_tokens for cost in self.costs.values())

    @property
    def repairs(self) -> int:
        """Second calls."""
        return self.costs[REPAIR].calls if REPAIR in self.costs else 0
