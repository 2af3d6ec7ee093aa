"""Trains one LEARN network, an epoch at a time: the same weights for the same seed and epoch.

Every draw of an epoch comes from the seed and the epoch's number alone, so a training that goes on
from a checkpoint ends where one that was never interrupted ends.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workers.adaptors.learn_shape import LearnShape
from workers.training.learn_batches import Batch, Episode, batches, episodes
from workers.training.learn_loss import dense_all_action, full_softmax
from workers.training.learn_model import LearnModel
from workers.training.learn_options import LearnOptions
from workers.training.learn_start import start_at_mean
from workers.training.reduced_parts import ReducedParts
from workers.training.user_sequences import UserSequences

Array = npt.NDArray[np.float32]

_USERS_AT_ONCE = 256
_BETAS = (0.9, 0.98)
_EPSILON = 1e-6
_LOWEST_RATE = 0.1
_CLIPPED_NORM = 1.0
_FIRST_STEPS = 10.0
"""The running average forgets its start by that many steps, before its own pace takes over."""


class _Shown(NamedTuple):
    """Items (n, width) past the content adaptor: as they are served, and as if they were new."""

    known: Tensor
    new: Tensor


class LearnTrainer:
    """Holds the network, its running average and the optimizer.

    Args:
        reduced: all items of the catalogue.
        knowledge_parts: (P,) which parts are knowledge.
        sequences: what users took to.
        options: the course of the training.
        device: where it runs; mixed precision on a GPU.
    """

    def __init__(
        self,
        reduced: ReducedParts,
        knowledge_parts: npt.NDArray[np.bool_],
        sequences: UserSequences,
        options: LearnOptions,
        device: torch.device,
    ) -> None:
        # A step is about items that somebody took to, and those alone.
        known = np.unique(sequences.items)
        self._sequences = replace(sequences, items=np.searchsorted(known, sequences.items))
        self._options = options
        self._device = device
        self._shares = torch.from_numpy(reduced.shares[known]).to(device)
        self._offset = torch.from_numpy(reduced.offset).to(device)
        self._new_shares = torch.from_numpy(reduced.new_shares[known]).to(device)
        self._new_offsets = torch.from_numpy(reduced.new_offsets[known]).to(device)
        self._mask = torch.from_numpy(reduced.mask[known]).to(device)
        self._is_knowledge = torch.from_numpy(knowledge_parts).to(device)
        self.shape = LearnShape(
            width=options.width,
            layers=options.layers,
            heads=options.heads,
            ffn=options.ffn,
            dim=options.dim,
            history=options.history,
            centres=reduced.radial.shape[0],
        )
        generator = torch.Generator().manual_seed(options.seed)
        torch.manual_seed(options.seed)
        self.model = LearnModel(self.shape, reduced.shares.shape[2], dropout=options.dropout)
        start_at_mean(self.model, generator)
        self.model.to(device)
        self._log_scale = torch.nn.Parameter(
            torch.tensor(-math.log(options.temperature), device=device)
        )
        self._average = {
            name: value.detach().clone() for name, value in self.model.named_parameters()
        }
        self._optimizer = torch.optim.AdamW(
            _groups(self.model, self._log_scale, options),
            lr=options.learning_rate,
            betas=_BETAS,
            eps=_EPSILON,
            weight_decay=options.weight_decay,
        )
        self._steps = 0
        self._steps_an_epoch = max(1, math.ceil(len(sequences) / options.sizes.users))

    def epoch(self, number: int, on_step: Callable[[int, int], None]) -> float:
        """Train on every user once and return the mean loss; `number` counts from 0."""
        torch.manual_seed(hash((self._options.seed, number)) & 0x7FFFFFFF)
        random = np.random.default_rng([self._options.seed, number])
        self.model.train()
        losses = []
        losses_of = self._losses(random)
        while True:
            self._set_rate()
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"
            ):
                loss = next(losses_of, None)
            if loss is None:
                break
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIPPED_NORM)
            self._optimizer.step()
            self._steps += 1
            self._follow()
            losses.append(loss.item())
            on_step(len(losses), self._steps_an_epoch)
        self.model.eval()
        return float(np.mean(losses)) if losses else math.nan

    def averaged(self) -> LearnModel:
        """Return the network of the running average, to be judged and served."""
        model = LearnModel(self.shape, self._shares.shape[2], dropout=0.0).to(self._device)
        model.load_state_dict(self._average)
        return model.eval()

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {
            "model": self.model.state_dict(),
            "average": self._average,
            "log_scale": self._log_scale.detach(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from a checkpoint's state."""
        model, average, optimizer = state["model"], state["average"], state["optimizer"]
        log_scale, steps = state["log_scale"], state["steps"]
        if not (
            isinstance(model, dict)
            and isinstance(average, dict)
            and isinstance(optimizer, dict)
            and isinstance(log_scale, Tensor)
            and isinstance(steps, int)
        ):
            raise TypeError("not a state of this trainer")
        self.model.load_state_dict(model)
        self._average = {name: value.to(self._device) for name, value in average.items()}
        self._optimizer.load_state_dict(optimizer)
        with torch.no_grad():
            self._log_scale.copy_(log_scale)
        self._steps = steps

    def _losses(self, random: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of each step of an epoch."""
        options, items = self._options, len(self._shares)
        if options.loss == "dense":
            yield from map(self._dense, batches(self._sequences, options.sizes, random))
        else:
            yield from map(self._full, episodes(self._sequences, items, options.sizes, random))

    def _dense(self, batch: Batch) -> Tensor:
        shown = self._shown()
        users = self.model.sequences(shown.known, self._tensor(batch.rows), self._tensor(batch.at))
        ids = self._tensor(batch.targets)
        items = self.model.alone(shown.new[ids.clamp(min=0).flatten()]).view(*ids.shape, -1)
        return dense_all_action(users.float(), items.float(), ids, self._log_scale.exp())

    def _full(self, episode: Episode) -> Tensor:
        shown = self._shown()
        users = self.model.sequences(
            shown.known, self._tensor(episode.rows), self._tensor(episode.at)
        )
        items = self.model.alone(shown.new[self._tensor(episode.asked)])
        found = self._tensor(episode.found)
        return full_softmax(users[:, 0].float(), items.float(), found, self._log_scale.exp())

    def _shown(self) -> _Shown:
        """Return the items of a step; what is to be found is shown as it would look if new."""
        kept = self._kept()
        known = torch.einsum("npr,np->nr", self._shares, kept) + self._offset
        new = torch.einsum("npr,np->nr", self._new_shares, kept) + self._new_offsets
        return _Shown(self.model.hidden(known), self.model.hidden(new))

    def _tensor(self, array: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _kept(self) -> Tensor:
        """Return (n, P), 1 for the parts that this step does not leave out."""
        options, mask = self._options, self._mask
        kept = torch.rand(mask.shape, device=mask.device) >= options.part_dropout
        told = torch.rand((len(mask), 1), device=mask.device) >= options.knowledge_dropout
        kept &= told | ~self._is_knowledge
        # An item that would be left without anything keeps all it has.
        kept |= ~(kept & mask).any(dim=1, keepdim=True)
        return (kept & mask).to(self._shares.dtype)

    def _set_rate(self) -> None:
        options = self._options
        warmup = options.warmup_epochs * self._steps_an_epoch
        total = options.epochs * self._steps_an_epoch
        progress = min(1.0, self._steps / max(total, 1))
        cosine = _LOWEST_RATE + (1 - _LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
        share = min(1.0, (self._steps + 1) / warmup) if warmup > 0 else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = options.learning_rate * cosine * share * group["share"]

    def _follow(self) -> None:
        # So that the first steps, still near the start, do not weigh on the average for ever.
        kept = min(self._options.average, self._steps / (self._steps + _FIRST_STEPS))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self._average[name].lerp_(value, 1 - kept)


def _groups(
    model: LearnModel, log_scale: torch.nn.Parameter, options: LearnOptions
) -> list[dict[str, object]]:
    """Return what the optimizer changes, in groups, each with its `share` of the learning rate."""
    keys, gains, others = [], [log_scale], []
    for name, value in model.named_parameters():
        if name.endswith("key.weight"):
            keys.append(value)
        elif name.endswith("norm.weight"):
            gains.append(value)
        else:
            # What does not change needs no gradient, and has none to clip the others' by.
            value.requires_grad_(options.others_rate > 0)
            others.append(value)
    groups = [(keys, 1.0), (gains, options.gain_rate), (others, options.others_rate)]
    return [{"params": values, "share": share} for values, share in groups if share > 0]


@torch.no_grad()
def item_vectors(
    model: LearnModel, reduced: ReducedParts, known: npt.NDArray[np.bool_] | None = None
) -> Array:
    """Return (n, dim) unit vectors of all items, with all their parts or the `known` (P,) ones."""
    device = next(model.parameters()).device
    inputs = torch.from_numpy(reduced.inputs if known is None else reduced.inputs_of(known))
    inputs = inputs.to(device)
    vectors: Array = model.alone(model.hidden(inputs)).cpu().numpy()
    return vectors


@torch.no_grad()
def user_vectors(model: LearnModel, reduced: ReducedParts, rows: npt.NDArray[np.int64]) -> Array:
    """Return (U, dim) vectors of users from `rows` (U, L) of the catalogue, padded with -1."""
    device = next(model.parameters()).device
    hidden = model.hidden(torch.from_numpy(reduced.inputs).to(device))
    vectors = np.zeros((len(rows), model.shape.dim), np.float32)
    lengths = (rows >= 0).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), _USERS_AT_ONCE):
        users = order[start : start + _USERS_AT_ONCE]
        longest = int(lengths[users].max())
        at = torch.from_numpy(lengths[users] - 1).to(device)[:, None]
        own = torch.from_numpy(rows[users, :longest]).to(device)
        vectors[users] = model.sequences(hidden, own, at)[:, 0].cpu().numpy()
    return vectors
