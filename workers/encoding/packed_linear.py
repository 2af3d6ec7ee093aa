"""Linear layers on oneDNN, their weights laid out once: what an encoder spends its time on.

The same float32 products as before, 1.8 times as many a second where the default library does not
use all of the processor (measured; see tests/bench/vectors.py). With bfloat16 only the products are
taken in it, 2.5 times as many; what lies between the layers stays float32. The operators are
those of torch's own compiler, called without it: nothing has to be compiled, and no shape is new.
"""

import torch
from torch import Tensor, nn

from schemas.errors import ConfigurationError
from workers.encoding.encoder_choice import Precision

# Resolved when called; torch's own compiler writes calls of just these.
_OPERATORS = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer without gradients: float32 in and out, its product in `precision`."""

    def __init__(self, layer: nn.Linear, precision: Precision) -> None:
        super().__init__()
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        bias = dict(layer.named_parameters()).get("bias")
        self._bias = None if bias is None else bias.detach().to(self._dtype)
        weight = layer.weight.detach().to(self._dtype)
        self._weight: Tensor = _OPERATORS._reorder_linear_weight(weight)  # noqa: SLF001

    def forward(self, rows: Tensor) -> Tensor:
        """Return (..., out) float32 of `rows` (..., in) float32."""
        product: Tensor = _OPERATORS._linear_pointwise(  # noqa: SLF001
            rows.to(self._dtype), self._weight, self._bias, "none", [], ""
        )
        return product.float()


def pack_linear_layers(model: nn.Module, precision: Precision) -> None:
    """Replace the linear layers of a float32 model; without oneDNN they stay as they are.

    Raises ConfigurationError where the processor has no bfloat16: emulated, it would be slower.
    """
    if precision == "bfloat16" and not _multiplies_bfloat16():
        raise ConfigurationError(
            "FRESHET_ENCODE__PRECISION", "this processor does not multiply bfloat16; use float32"
        )
    if not _has_onednn():
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            # Not its subclasses: they may do something else.
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child, precision))


def _has_onednn() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available


def _multiplies_bfloat16() -> bool:
    supported: bool = _has_onednn() and _OPERATORS._is_mkldnn_bf16_supported()  # noqa: SLF001
    return supported
