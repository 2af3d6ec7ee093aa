"""LEARN-Adaptor: from a `learn` space's vectors to features of a ranker, in torch.

A user's and an item's vector go through a fusion of two linear layers; a small network after it
predicts the conversion, so that features trained offline follow what the business counts today. The
ranker gets fusion, user, item and whether these were there, beside the features it has, and is
trained with its own loss; add `conversion_loss` to that (arXiv 2405.03988, section 3.4).

It lives beside the rankers, not with the training of spaces: whoever has a ranker takes it along.
The paper does not say whether the ranker's gradient reaches the fusion; `detach` decides.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Adapted(NamedTuple):
    """`features` (n, LearnAdaptor.width) for the ranker, `conversion` (n,) logits of the head."""

    features: Tensor
    conversion: Tensor


class LearnAdaptor(nn.Module):
    """The module beside the ranker.

    Args:
        dim: width of the space.
        fusion: widths of the two fusion layers.
        hidden: width of the head's hidden layer.
        detach: keeps the ranker's gradient from the fusion.
    """

    def __init__(
        self,
        dim: int,
        *,
        fusion: tuple[int, int] = (128, 64),
        hidden: int = 64,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.width = fusion[1] + 2 * dim + 2
        self._detach = detach
        self.fusion = nn.Sequential(
            nn.Linear(2 * dim, fusion[0]), nn.ReLU(), nn.Linear(fusion[0], fusion[1])
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(fusion[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(
        self, users: Tensor, items: Tensor, users_found: Tensor, items_found: Tensor
    ) -> Adapted:
        """Return features and logits for `users` and `items` (n, dim), masks (n,) bool.

        What was not found is zeros, whatever stands there, and its mask says so.
        """
        users = torch.where(users_found[:, None], users, 0.0)
        items = torch.where(items_found[:, None], items, 0.0)
        # Of half a pair there is nothing to fuse: zeros, rather than what a bias makes of nothing.
        both = (users_found & items_found)[:, None]
        fused = self.fusion(torch.cat([users, items], dim=1)) * both
        given = fused.detach() if self._detach else fused
        masks = torch.stack([users_found, items_found], dim=1).to(users.dtype)
        return Adapted(torch.cat([given, users, items, masks], dim=1), self.head(fused)[:, 0])


def conversion_loss(adapted: Adapted, converted: Tensor) -> Tensor:
    """Return the head's binary cross entropy; `converted` (n,) is 1 where it came to that."""
    return nn.functional.binary_cross_entropy_with_logits(
        adapted.conversion, converted.to(adapted.conversion.dtype)
    )


class WithFeatures(nn.Module):
    """A ranker's first layer that takes features beside what it had.

    They do not count yet: a ranker that goes on training from where it was starts out as exactly
    the one it is, and without the features (None) it is that one for ever.
    """

    def __init__(self, first: nn.Linear, width: int) -> None:
        super().__init__()
        self.first = first
        self.beside = nn.Linear(width, first.out_features, bias=False)
        nn.init.zeros_(self.beside.weight)

    def forward(self, existing: Tensor, features: Tensor | None) -> Tensor:
        """Return (n, out) of `existing` (n, in) and `features` (n, width)."""
        before = torch.as_tensor(self.first(existing))
        return before if features is None else before + self.beside(features)
