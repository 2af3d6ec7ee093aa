"""Trains a `reki` space: epoch by epoch, until validation gets no better; then the adaptor of it.

Which epoch is kept is decided by validation samples, which lie after those trained on; the test
samples lie after both, and are looked at once, when all is decided.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from schemas.entities import EntityKind
from schemas.spaces import Space
from workers.adaptors.hein import ADAPTOR_ID, HeinAdaptor
from workers.adaptors.hein_shape import HeinShape
from workers.adaptors.trained_space import RAW_SPACE
from workers.evaluation.ranking import auc
from workers.training.checkpoints import load_checkpoint, save_checkpoint
from workers.training.hein_model import KnowledgeTowers
from workers.training.reki_data import Array, RekiData
from workers.training.reki_options import RekiOptions
from workers.training.reki_trainer import RekiTrainer

Progress = Callable[[str, int, int], None]


class Epoch(NamedTuple):
    """What an epoch came to."""

    loss: float
    valid_auc: float


@dataclass(frozen=True, slots=True)
class TrainedReki:
    """The best epoch: its AUC on validation and test, the test scores, and the adaptor's arrays.

    `test_auc` is None and `test_scores` are empty where no test samples were kept aside, `arrays`
    are empty for a ranker without HEIN.
    """

    epochs: tuple[Epoch, ...]
    best: int
    valid_auc: float
    test_auc: float | None
    test_scores: Array
    shape: HeinShape
    arrays: Mapping[str, Array] = field(default_factory=dict)


def train_reki(
    data: RekiData,
    options: RekiOptions,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> TrainedReki:
    """Train the ranker and the network together and return the best epoch.

    With a `checkpoint` every epoch is kept there, and a training of the same data and options goes
    on where it ended. Raises ConfigurationError when the checkpoint is of another training.
    """
    trainer = RekiTrainer(data, options, device)
    course = _Course(_digest(data, options))
    if checkpoint is not None:
        course.resume(checkpoint, trainer)
    while len(course.epochs) < options.epochs and not course.is_over(options.patience):
        number = len(course.epochs)
        loss = trainer.epoch(number, partial(progress, f"epoch {number + 1}"))
        valid = trainer.judge(data.split.valid)
        course.add(Epoch(loss, valid), trainer)
        progress(f"epoch {number + 1}: AUC {valid:.4f} on validation", 1, 1)
        if checkpoint is not None:
            course.save(checkpoint, trainer)
    trainer.restore(course.best_state)
    test = data.split.test
    scores = trainer.scores(test) if len(test) else np.zeros(0, np.float32)
    adaptor = trainer.adaptor
    return TrainedReki(
        epochs=tuple(course.epochs),
        best=course.best,
        valid_auc=course.epochs[course.best].valid_auc,
        test_auc=auc(scores, data.labels[test] > 0) if len(test) else None,
        test_scores=scores,
        shape=trainer.shape,
        arrays=_arrays(adaptor, data) if isinstance(adaptor, KnowledgeTowers) else {},
    )


def reki_space(
    trained: TrainedReki,
    data: RekiData,
    raw: Space,
    *,
    name: str,
    provenance: Mapping[str, str | int],
) -> HeinAdaptor:
    """Return the adaptor of the space `name` over the parts of the space `raw`.

    `provenance` says what it was trained on.
    """
    shape = trained.shape
    figures = {"valid_auc": trained.valid_auc}
    if trained.test_auc is not None:
        figures["test_auc"] = trained.test_auc
    space = Space(
        name=name,
        kinds=(EntityKind.ITEM, EntityKind.USER),
        encoder_id=raw.encoder_id,
        adaptor_id=ADAPTOR_ID,
        parts=raw.parts,
        part_dim=raw.part_dim,
        dim=shape.dim,
        metric="dot",
        user_vectors="histories",
        fitted_on={
            RAW_SPACE: raw.name,
            **shape.declared(),
            **data.rule.declared(),
            "train_samples": len(data.split.train),
            "valid_from_ms": data.split.valid_from_ms,
            "test_from_ms": data.split.test_from_ms,
            **provenance,
        },
        metrics={key: round(value, 5) for key, value in figures.items()},
    )
    return HeinAdaptor.from_tensors(space, trained.arrays)


def _arrays(adaptor: KnowledgeTowers, data: RekiData) -> dict[str, Array]:
    learned = {
        name: value.detach().float().cpu().numpy()
        for name, value in adaptor.hein.state_dict().items()
    }
    unknown: Array = adaptor.unknown.detach().float().cpu().numpy()
    return {"mean": data.mean, "projection": data.projection, "unknown": unknown, **learned}


def _digest(data: RekiData, options: RekiOptions) -> str:
    """Return what two trainings share only if one may go on where the other stopped."""
    hasher = blake2b(digest_size=16)
    hasher.update(json.dumps(options.declared(), sort_keys=True).encode())
    samples = data.samples
    for array in (samples.items, samples.at_ms, samples.starts, data.weights, data.inputs):
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


class _Course:
    """The epochs so far, and the state of the best of them."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self.epochs: list[Epoch] = []
        self.best = 0
        self.best_state: Mapping[str, object] = {}

    def is_over(self, patience: int) -> bool:
        """Whether validation got no better for `patience` epochs."""
        return len(self.epochs) - 1 - self.best >= patience and bool(self.epochs)

    def add(self, epoch: Epoch, trainer: RekiTrainer) -> None:
        """Note an epoch, and keep its state if there is no better one."""
        self.epochs.append(epoch)
        if len(self.epochs) == 1 or epoch.valid_auc > self.epochs[self.best].valid_auc:
            self.best = len(self.epochs) - 1
            self.best_state = _copied(trainer.state())

    def save(self, path: Path, trainer: RekiTrainer) -> None:
        """Write all of it; an interruption leaves the file before it."""
        save_checkpoint(
            path,
            {
                "digest": self._digest,
                "epochs": [tuple(epoch) for epoch in self.epochs],
                "best": self.best,
                "best_state": dict(self.best_state),
                "state": trainer.state(),
            },
        )

    def resume(self, path: Path, trainer: RekiTrainer) -> None:
        """Take up what was written, if anything; raises ConfigurationError on another training."""
        # Any: what it holds is what `save` put there for this digest.
        saved: dict[str, Any] | None = load_checkpoint(path, self._digest)
        if saved is None:
            return
        self.epochs = [Epoch(*epoch) for epoch in saved["epochs"]]
        self.best, self.best_state = saved["best"], saved["best_state"]
        trainer.restore(saved["state"])


def _copied(state: Mapping[str, object]) -> dict[str, object]:
    """Return a copy: the optimizer and the modules go on changing their tensors."""
    return {key: _deep(value) for key, value in state.items()}


def _deep(value: object) -> object:
    match value:
        case torch.Tensor():
            return value.detach().clone()
        case Mapping():
            return {key: _deep(one) for key, one in value.items()}
        case list():
            return [_deep(one) for one in value]
        case _:
            return value
