"""Trains a DIN ranker and REKI's network together, an epoch at a time.

Every draw of an epoch comes from the seed and the epoch's number, so a training that goes on from a
checkpoint ends where one that was never interrupted ends.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from workers.adaptors.hein_shape import HeinShape
from workers.evaluation.ranking import auc
from workers.training.din import Din, DinBatch, DinShape
from workers.training.hein_model import KnowledgeTowers
from workers.training.reki_data import LEVELS, Array, Inputs, Ints, Mask, RekiData
from workers.training.reki_options import RekiOptions

_JUDGED_AT_ONCE = 2_048
_CLIPPED_NORM = 5.0


class PlainAdaptor(nn.Module):
    """What HEIN is compared with: one hidden layer for all inputs together."""

    def __init__(self, shape: HeinShape) -> None:
        super().__init__()
        self.unknown = nn.Parameter(0.1 * torch.randn(shape.towers, shape.width))
        self.layers = nn.Sequential(
            nn.Linear(shape.towers * shape.width, shape.hidden),
            nn.ReLU(),
            nn.Linear(shape.hidden, shape.dim),
            nn.ReLU(),
        )

    def forward(self, inputs: Iterable[Tensor], known: Iterable[Tensor]) -> Tensor:
        """Return (n, dim); as KnowledgeTowers."""
        filled = [
            torch.where(has[:, None], one, unknown)
            for one, has, unknown in zip(inputs, known, self.unknown, strict=True)
        ]
        return torch.as_tensor(self.layers(torch.cat(filled, dim=1)))


class RekiTrainer:
    """Holds the ranker, the adaptor (None: the ranker alone) and the optimizer.

    Args:
        data: what it is trained on.
        options: the course of the training.
        device: where it runs; mixed precision on a GPU.
    """

    def __init__(self, data: RekiData, options: RekiOptions, device: torch.device) -> None:
        self._data = data
        self._options = options
        self._device = device
        torch.manual_seed(options.seed)
        self.shape = HeinShape(
            width=data.inputs.shape[1], shared=options.shared, dedicated=options.dedicated
        )
        told = options.knowledge != "none"
        attributes = data.attributes
        self.ranker = Din(
            DinShape(
                ids=attributes.id_count,
                attributes=attributes.value_counts,
                levels=LEVELS,
                features=self.shape.dim if told else 0,
                embedding=options.embedding,
                attention=options.attention,
                layers=options.layers,
                dropout=options.dropout,
                id_dropout=options.id_dropout,
            ),
            torch.from_numpy(attributes.ids),
            torch.from_numpy(attributes.values),
        ).to(device)
        self.adaptor: KnowledgeTowers | PlainAdaptor | None = None
        if told:
            self.adaptor = (
                KnowledgeTowers(self.shape, options.knowledge_dropout)
                if options.adaptor == "hein"
                else PlainAdaptor(self.shape)
            ).to(device)
        self._optimizer = torch.optim.AdamW(
            _groups(self._modules(), options.weight_decay), lr=options.learning_rate
        )

    def epoch(self, number: int, on_step: Callable[[int, int], None]) -> float:
        """Train on every sample once and return the mean loss; `number` counts from 0."""
        options, data = self._options, self._data
        torch.manual_seed(options.seed * 1_000_003 + number)
        random = np.random.default_rng([options.seed, number])
        rows = random.permutation(data.split.train)
        for module in self._modules():
            module.train()
        losses = []
        steps = math.ceil(len(rows) / options.batch)
        for start in range(0, len(rows), options.batch):
            chunk = rows[start : start + options.batch]
            without = random.random(len(chunk)) < options.content_only
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"
            ):
                logits = self._logits(chunk, without, options.content_only)
            labels = torch.from_numpy(data.labels[chunk]).to(self._device)
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for module in self._modules():
                torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIPPED_NORM)
            self._optimizer.step()
            losses.append(loss.item())
            on_step(len(losses), steps)
        return float(np.mean(losses))

    @torch.no_grad()
    def scores(self, rows: Ints) -> Array:
        """Return (n,) logits of samples, with all knowledge there is."""
        for module in self._modules():
            module.eval()
        chunks = [
            self._logits(chunk, np.zeros(len(chunk), np.bool_), 0.0).float().cpu().numpy()
            for start in range(0, len(rows), _JUDGED_AT_ONCE)
            if len(chunk := rows[start : start + _JUDGED_AT_ONCE])
        ]
        return np.concatenate(chunks)

    def judge(self, rows: Ints) -> float:
        """Return the AUC over samples."""
        return auc(self.scores(rows), self._data.labels[rows] > 0)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {
            "modules": [module.state_dict() for module in self._modules()],
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from a checkpoint's state."""
        modules, optimizer = state["modules"], state["optimizer"]
        if not (isinstance(modules, list) and isinstance(optimizer, dict)):
            raise TypeError("not a state of this trainer")
        for module, own in zip(self._modules(), modules, strict=True):
            module.load_state_dict(own)
        self._optimizer.load_state_dict(optimizer)

    def _modules(self) -> list[nn.Module]:
        return [self.ranker] if self.adaptor is None else [self.ranker, self.adaptor]

    def _logits(self, rows: Ints, without: Mask, without_before: float) -> Tensor:
        data, options = self._data, self._options
        samples = data.samples
        history = samples.history(rows, options.history)
        before = np.maximum(history, 0)
        batch = DinBatch(
            self._tensor(samples.items[rows]),
            self._tensor(samples.items[before]),
            self._tensor(np.where(history >= 0, data.levels[before], 0)),
        )
        if self.adaptor is None:
            return torch.as_tensor(self.ranker(batch))
        told = data.told(rows, options.taste_history, without, without_before)
        return torch.as_tensor(self.ranker(batch, self._features(told)))

    def _features(self, told: Inputs) -> Tensor:
        tastes = told.tastes
        inputs = [self._tensor(one) for one in (tastes.liked, tastes.cold, told.items)]
        known = [self._tensor(one) for one in (tastes.has_liked, tastes.has_cold, told.has_item)]
        return torch.as_tensor(self.adaptor(inputs, known)) if self.adaptor else torch.empty(0)

    def _tensor(self, array: Array | Ints | Mask) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Return the optimizer's groups: biases, slopes and learned inputs do not decay."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            is_weight = parameter.ndim > 1 and "bias" not in name and name != "unknown"
            (decayed if is_weight else others).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
