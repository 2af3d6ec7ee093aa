"""LEARN's losses: the dense all-action contrastive loss, and full softmax over a catalogue. Pure.

Dense: every sampled history position of a user against every sampled target of theirs; negatives
are the targets of other users of the batch. A user's other targets are in no denominator of
theirs, and neither is any item of another user that is among the user's own targets. Full: the
negatives are all candidates that are none of the user's targets.
"""

import torch
from torch import Tensor

NO_ITEM = -1
"""Where a user has fewer targets, or positions, than others of the batch."""

_OUT = -1e4


def dense_all_action(users: Tensor, items: Tensor, item_ids: Tensor, scale: Tensor) -> Tensor:
    """Return the mean loss over all pairs of a user's position and target.

    Args:
        users: (B, H, dim) unit user vectors, one a sampled history position.
        items: (B, T, dim) unit vectors of the sampled targets.
        item_ids: (B, T) their ids, `NO_ITEM` where there is none.
        scale: (), what cosines are multiplied with.
    """
    count, positions = users.shape[:2]
    real = item_ids != NO_ITEM
    flat_ids = item_ids.flatten()
    # (B, B * T): is the target among the user's own ones, as theirs or as somebody else's?
    own = (flat_ids[None, :, None] == item_ids[:, None, :]).any(-1)
    excluded = own | ~real.flatten()
    scores = scale * torch.einsum("bhd,nd->bhn", users, items.flatten(0, 1))
    others = scores.masked_fill(excluded[:, None], _OUT).logsumexp(-1)
    rows = torch.arange(count, device=users.device)
    targets = scores.view(count, positions, *item_ids.shape)[rows, :, rows]
    losses = torch.logaddexp(targets, others[..., None]) - targets
    weights = real[:, None].expand(-1, positions, -1).to(losses.dtype)
    mean: Tensor = (losses * weights).sum() / weights.sum().clamp(min=1)
    return mean


def full_softmax(users: Tensor, candidates: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Return the mean over users of their targets' mean loss against all other candidates.

    Args:
        users: (B, dim) unit user vectors.
        candidates: (c, dim) unit vectors of items, recomputed at every step.
        targets: (B, c) bool: what each user is to be told from the rest by, at least one each.
        scale: (), what cosines are multiplied with.
    """
    scores = scale * users @ candidates.T
    others = scores.masked_fill(targets, _OUT).logsumexp(-1, keepdim=True)
    losses = torch.logaddexp(scores, others) - scores
    mean: Tensor = ((losses * targets).sum(-1) / targets.sum(-1)).mean()
    return mean
