"""HEIN, REKI's hybridized expert-integrated network, in torch: texts about entities to features.

One tower for each kind of knowledge. A tower sends its own input, and no other, through experts of
its own and through experts that all towers share; its gate weighs what they say. Structure, sizes
and activations are those of the published code (arXiv 2306.10933, RS/layers.py, class HEA).

`KnowledgeTowers` adds what the published method leaves open: an input for the entity of which
nothing is known, learned, and met during training, so that missing knowledge is in distribution.
Serving needs none of this module: `workers.adaptors.hein_forward` is the same in numpy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.adaptors.hein_shape import HeinShape


class Experts(nn.Module):
    """`count` experts side by side: Linear, ReLU, Dropout, Linear, ReLU, Dropout."""

    def __init__(self, count: int, shape: HeinShape, dropout: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(count, shape.width, shape.hidden))
        self.first_bias = nn.Parameter(torch.zeros(count, 1, shape.hidden))
        self.second = nn.Parameter(torch.empty(count, shape.hidden, shape.out))
        self.second_bias = nn.Parameter(torch.zeros(count, 1, shape.out))
        for weights in (self.first, self.second):
            for one in weights:
                nn.init.xavier_normal_(one)
        self._dropout = dropout

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (count, n, out) for `inputs` (n, width)."""
        several = inputs.expand(len(self.first), *inputs.shape)
        hidden = self._dropped(torch.baddbmm(self.first_bias, several, self.first))
        return self._dropped(torch.baddbmm(self.second_bias, hidden, self.second))

    def _dropped(self, values: Tensor) -> Tensor:
        return nn.functional.dropout(torch.relu(values), self._dropout, self.training)


class Hein(nn.Module):
    """The network: 1,241,486 parameters at width 768 with 2 towers, 2 shared and 5 own experts."""

    def __init__(self, shape: HeinShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.shared = Experts(shape.shared, shape, dropout)
        self.dedicated = nn.ModuleList(
            Experts(shape.dedicated, shape, dropout) for _ in range(shape.towers)
        )
        self.gates = nn.ModuleList(
            _gate(shape.width, shape.shared + shape.dedicated) for _ in range(shape.towers)
        )

    def gate(self, tower: int, inputs: Tensor) -> Tensor:
        """Return (n, shared + dedicated): the experts' weights, the shared first; they sum to 1."""
        return torch.softmax(self.gates[tower](inputs), dim=1)

    def tower(self, tower: int, inputs: Tensor) -> Tensor:
        """Return (n, out) for one tower's `inputs` (n, width)."""
        said = torch.cat([self.shared(inputs), self.dedicated[tower](inputs)])
        return torch.einsum("ne,eno->no", self.gate(tower, inputs), said)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return (n, towers * out), the towers side by side; one (n, width) input for each."""
        return torch.cat([self.tower(k, one) for k, one in enumerate(inputs)], dim=1)


def _gate(width: int, experts: int) -> nn.Linear:
    gate = nn.Linear(width, experts)
    nn.init.xavier_normal_(gate.weight)
    nn.init.zeros_(gate.bias)
    return gate


class KnowledgeTowers(nn.Module):
    """HEIN with a learned input for missing knowledge, a share of which training makes up.

    Args:
        shape: of the network.
        knowledge_dropout: the share of known inputs that training takes for unknown, drawn for
            each tower and sample.
        dropout: inside the experts.
    """

    def __init__(
        self, shape: HeinShape, knowledge_dropout: float = 0.1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.hein = Hein(shape, dropout)
        # Not zero: there the experts' first layers would get no gradient.
        self.unknown = nn.Parameter(0.1 * torch.randn(shape.towers, shape.width))
        self.knowledge_dropout = knowledge_dropout

    def forward(self, inputs: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
        """Return (n, towers * out).

        Args:
            inputs: (n, width) for each tower; whatever stands in unknown rows is not looked at.
            known: (n,) bool for each tower.
        """
        filled = []
        for default, one, has in zip(self.unknown, inputs, known, strict=True):
            kept = has
            if self.training and self.knowledge_dropout:
                kept = has & (torch.rand(len(has), device=has.device) >= self.knowledge_dropout)
            filled.append(torch.where(kept[:, None], one, default))
        return torch.as_tensor(self.hein(filled))
