"""Packed linear layers give what the layers they replace gave."""

import numpy as np
import pytest
import torch
from torch import nn

from workers.encoding.encoder_choice import Precision
from workers.encoding.packed_linear import PackedLinear, pack_linear_layers


class Named(nn.Module):
    """A model with linear layers at two depths, one of them without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(48, 96)
        self.rest = nn.Sequential(nn.GELU(), nn.Linear(96, 16, bias=False))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(rows))


def outputs(precision: Precision) -> tuple[np.ndarray, np.ndarray, Named]:
    torch.manual_seed(0)
    model = Named().eval()
    rows = torch.randn(3, 7, 48)
    with torch.inference_mode():
        before = model(rows).numpy()
        pack_linear_layers(model, precision)
        after = model(rows).numpy()
    return before, after, model


def test_every_linear_layer_is_replaced_and_none_changes_a_value():
    before, after, model = outputs("float32")

    assert isinstance(model.first, PackedLinear)
    assert isinstance(model.rest[1], PackedLinear)
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_bfloat16_stays_close_and_returns_float32():
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not multiply bfloat16")
    before, after, _ = outputs("bfloat16")

    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).max() < 0.05


def test_a_row_alone_and_among_others_gives_the_same():
    torch.manual_seed(0)
    model = Named().eval()
    pack_linear_layers(model, "float32")
    rows = torch.randn(200, 48)

    with torch.inference_mode():
        together = model(rows).numpy()
        alone = np.concatenate([model(rows[index : index + 1]).numpy() for index in range(200)])

    np.testing.assert_allclose(together, alone, atol=1e-5)
