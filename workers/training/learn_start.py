"""Where the training of a LEARN network starts: at the mean of a history's principal components.

Zero-start residuals, as deep networks use them: the first layer attends to all items alike and
hands their mean on, every other branch adds nothing. So before the first step a user is the mean of
their items in the `parts-pca` space, which ranks new items well without any interaction, and
training can only refine it. From random weights the few interactions of a small catalogue are not
enough to get there.
"""

import torch
from torch import nn

from workers.training.learn_model import EncoderLayer, LearnModel

MEAN_GAIN = 32.0
"""How much the first layer's mean outweighs the last item, which a residual brings along."""

_KEY_SPREAD = 0.02


def start_at_mean(model: LearnModel, generator: torch.Generator) -> None:
    """Set the weights of a new model; `generator` draws what must not be all alike."""
    first, *others = model.encoder()
    with torch.no_grad():
        nn.init.eye_(model.content.weight)
        nn.init.eye_(model.online.weight)
        model.content.bias.zero_()
        model.online.bias.zero_()
        for layer in (first, *others):
            _silence(layer, generator)
        # All keys alike, and a query that any change of them shows in: what an item weighs in its
        # history is learned from the first step on.
        first.key.weight.zero_()
        first.query.bias.fill_(1.0)
        gain = MEAN_GAIN**0.5 * torch.eye(len(first.out.weight))
        first.value.weight.copy_(gain)
        first.out.weight.copy_(gain)


def _silence(layer: EncoderLayer, generator: torch.Generator) -> None:
    for linear in (layer.query, layer.key, layer.value, layer.up):
        linear.weight.normal_(0.0, _KEY_SPREAD, generator=generator)
        linear.bias.zero_()
    for linear in (layer.out, layer.down):
        linear.weight.zero_()
        linear.bias.zero_()
    for norm in (layer.attention_norm, layer.ffn_norm):
        norm.reset_parameters()
