"""A ranker that reads live vectors and logs what it was served.

Run it: `python -m deploy.examples.ranker redis://127.0.0.1:6379 user:7 item:42 item:43`. It prints
the items by score, then a line of JSON for each vector: what training needs later. The ranker here
knows nothing yet; put yours in its place, and train it on the logged vectors, never on those that
are live by then.
"""

import sys

import orjson
import torch
from torch import Tensor, nn

from workers.live.live_vectors import LiveVectors
from workers.rankers.learn_adaptor import LearnAdaptor
from workers.rankers.live_features import LiveFeatures, training_log

EXISTING = 3
"""Features that the ranker has anyway."""


class Ranker(nn.Module):
    """Any ranker: what it has, and beside it what comes from a space of `dim` values."""

    def __init__(self, dim: int, *, is_reki: bool) -> None:
        super().__init__()
        self.adaptor = None if is_reki else LearnAdaptor(dim)
        width = dim if self.adaptor is None else self.adaptor.width
        self.layers = nn.Sequential(nn.Linear(EXISTING + width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, existing: Tensor, live: LiveFeatures) -> Tensor:
        """Return (n,) scores of n items, `existing` (n, EXISTING)."""
        if self.adaptor is None:
            told = torch.from_numpy(live.reki())
        else:
            tensors = (live.users, live.items, live.users_found, live.items_found)
            told = self.adaptor(*(torch.from_numpy(one.copy()) for one in tensors)).features
        return torch.as_tensor(self.layers(torch.cat([existing, told], dim=1))[:, 0])


def rank(
    live: LiveVectors, ranker: Ranker, existing: Tensor, user: str, items: list[str]
) -> tuple[list[float], list[dict[str, object]]]:
    """Return the items' scores, and what to log of this request; raises Transient."""
    with live.pin() as view:  # one space for users and items, whatever is activated meanwhile
        of_user, of_items = view.get([user]), view.get(items)
    with torch.no_grad():
        scores = ranker(existing, LiveFeatures.of(of_user, of_items))
    return scores.tolist(), [
        *training_log([user], of_user),
        *training_log(items, of_items),
    ]


def main(url: str, user: str, *items: str) -> None:
    """Rank items for a user and print scores and log."""
    with LiveVectors(url) as live:
        with live.pin() as view:
            space = view.get([user])
        torch.manual_seed(0)
        ranker = Ranker(space.values.shape[1], is_reki=space.space.startswith("reki"))
        scores, log = rank(live, ranker, torch.zeros(len(items), EXISTING), user, list(items))
    for score, item in sorted(zip(scores, items, strict=True), reverse=True):
        print(f"{score:+.4f}  {item}")
    for line in log:
        print(orjson.dumps(line).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
