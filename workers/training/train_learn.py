"""Trains a LEARN space: choose the number of epochs on what is held out, then train on everything.

Data in, adaptor out; files of spaces and of interactions are the caller's. Resumable: after each
epoch the state is written, and a training that goes on ends with the same space.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from schemas.entities import EntityKind
from schemas.spaces import Space
from workers.adaptors.learn import ADAPTOR_ID, LearnAdaptor
from workers.adaptors.learn_shape import RADIAL
from workers.adaptors.trained_space import RAW_SPACE
from workers.training.checkpoints import load_checkpoint, save_checkpoint
from workers.training.held_out import HeldOut, HeldOutFigures
from workers.training.item_confidence import chosen_confidence, confidence_of_parts
from workers.training.learn_model import LearnModel
from workers.training.learn_options import LearnOptions
from workers.training.learn_trainer import LearnTrainer, item_vectors, user_vectors
from workers.training.reduced_parts import ComponentSizes, ReducedParts
from workers.training.user_sequences import UserSequences

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_CHOOSING, _FINAL = "choosing", "final"


@dataclass(frozen=True, slots=True)
class LearnData:
    """What a network is trained on.

    Attributes:
        parts, mask: (n, P, d) and (n, P), the catalogue's raw parts.
        knowledge_parts: (P,) which parts are knowledge.
        raw: the raw space they are of.
        train: sequences without anything held out.
        held_out: what the number of epochs is chosen by; None trains for all epochs.
        everything: sequences with what was held out, for the final network; None when `train` is
            final already.
        hashes: digests of the files, kept in the space.
    """

    parts: Array
    mask: Mask
    knowledge_parts: Mask
    raw: Space
    train: UserSequences
    held_out: HeldOut | None
    everything: UserSequences | None
    hashes: dict[str, str]


class EpochReport(NamedTuple):
    """How it stands after so many epochs of a stage, which is choosing or final.

    `loss` is None before the first one; `figures` where nothing is held out.
    """

    stage: str
    epochs: int
    loss: float | None
    figures: HeldOutFigures | None


Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, of how much)."""


@dataclass(frozen=True, slots=True)
class TrainedSpace:
    """The space's adaptor, and how the training went."""

    adaptor: LearnAdaptor
    epochs: tuple[EpochReport, ...]


def train_learn(
    data: LearnData,
    options: LearnOptions,
    *,
    name: str,
    device: torch.device,
    checkpoint: Path | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
    on_epoch: Callable[[EpochReport], None] = lambda _report: None,
) -> TrainedSpace:
    """Return the trained space `name`; goes on from `checkpoint` where that file exists.

    Raises ConfigurationError for a checkpoint of another training.
    """
    digest = _digest(data, options)
    state = load_checkpoint(checkpoint, digest) if checkpoint is not None else None
    run = _Run(data, options, device, checkpoint, digest, on_progress, on_epoch)
    model, reduced = run.all_stages(state)
    return TrainedSpace(_adaptor(data, options, model, reduced, name, run), tuple(run.reports))


class _Run:
    """The stages of one training, and what a checkpoint has to know of them."""

    def __init__(
        self,
        data: LearnData,
        options: LearnOptions,
        device: torch.device,
        checkpoint: Path | None,
        digest: str,
        on_progress: Progress,
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        self._data = data
        self._options = options
        self._device = device
        self._checkpoint = checkpoint
        self._digest = digest
        self._on_progress = on_progress
        self._on_epoch = on_epoch
        self.reports: list[EpochReport] = []
        self.confidence = 1.0

    @property
    def chosen(self) -> EpochReport | None:
        """When the figures on what was held out were best, at first among equals."""
        judged = [report for report in self.reports if report.figures is not None]
        return max(judged, key=_score, default=None)

    def all_stages(self, state: dict[str, object] | None) -> tuple[LearnModel, ReducedParts]:
        """Return the final network, over which components."""
        stage = _FINAL if state is not None and state["stage"] == _FINAL else _CHOOSING
        if state is not None:
            self.reports = [_report(one) for one in _listed(state["reports"])]
            self.confidence = float(str(state["confidence"]))
        everything = self._data.everything
        if stage == _CHOOSING:
            epochs = self._options.epochs
            model, reduced = self._stage(_CHOOSING, self._data.train, epochs, state)
            if self._data.held_out is not None:
                self.confidence = chosen_confidence(
                    model, reduced, self._data.held_out, self._data.knowledge_parts
                )
            if everything is None:
                return model, reduced
            state = None
        chosen = self.chosen
        epochs = self._options.epochs if chosen is None else chosen.epochs
        return self._stage(
            _FINAL, self._data.train if everything is None else everything, epochs, state
        )

    def _stage(
        self, stage: str, sequences: UserSequences, epochs: int, state: dict[str, object] | None
    ) -> tuple[LearnModel, ReducedParts]:
        data, options = self._data, self._options
        self._on_progress(f"{stage}: components", 0, 0)
        reduced = ReducedParts.of(data.parts, data.mask, sequences, _sizes(options))
        trainer = LearnTrainer(reduced, data.knowledge_parts, sequences, options, self._device)
        held_out = data.held_out if stage == _CHOOSING else None
        best = None
        if state is None:
            best = self._report(stage, 0, None, trainer, reduced, held_out, best)
        else:
            trainer.restore(_dict(state["trainer"]))
            best = None if state["best"] is None else _dict(state["best"])
        done = self.reports[-1].epochs
        while done < epochs and not (held_out is not None and self._is_over(done)):
            loss = trainer.epoch(done, partial(self._on_progress, f"{stage}: epoch {done + 1}"))
            done += 1
            best = self._report(stage, done, loss, trainer, reduced, held_out, best)
        model = trainer.averaged()
        if best is not None:
            model.load_state_dict(best)
        return model, reduced

    def _report(
        self,
        stage: str,
        done: int,
        loss: float | None,
        trainer: LearnTrainer,
        reduced: ReducedParts,
        held_out: HeldOut | None,
        best: dict[str, object] | None,
    ) -> dict[str, object] | None:
        """Judge, tell and save; return the weights that are best now."""
        model = trainer.averaged()
        figures = None if held_out is None else _judged(model, reduced, held_out)
        report = EpochReport(stage, done, loss, figures)
        self.reports.append(report)
        if self.chosen is report:
            best = dict(model.state_dict())
        self._on_epoch(report)
        self._save(stage, trainer, best)
        return best

    def _is_over(self, done: int) -> bool:
        chosen = self.chosen
        return chosen is not None and done - chosen.epochs > self._options.patience

    def _save(self, stage: str, trainer: LearnTrainer, best: dict[str, object] | None) -> None:
        if self._checkpoint is not None:
            save_checkpoint(
                self._checkpoint,
                {
                    "digest": self._digest,
                    "stage": stage,
                    "reports": [_plain(report) for report in self.reports],
                    "confidence": self.confidence,
                    "trainer": trainer.state(),
                    "best": best,
                },
            )


def _sizes(options: LearnOptions) -> ComponentSizes:
    return ComponentSizes(
        options.width, options.directions, options.centres, options.sharpness, options.seed
    )


def _judged(model: LearnModel, reduced: ReducedParts, held_out: HeldOut) -> HeldOutFigures:
    return held_out.judge(user_vectors(model, reduced, held_out.rows), item_vectors(model, reduced))


def _adaptor(
    data: LearnData,
    options: LearnOptions,
    model: LearnModel,
    reduced: ReducedParts,
    name: str,
    run: _Run,
) -> LearnAdaptor:
    chosen = run.chosen
    tensors = {
        key: value.detach().float().cpu().numpy().copy()
        for key, value in model.state_dict().items()
    }
    content = reduced.folded(tensors["content.weight"], tensors["content.bias"])
    tensors["content.weight"], tensors["content.bias"] = content.weight, content.bias
    if reduced.units.centres.shape[1]:
        tensors[RADIAL] = content.radial
        tensors["centres"], tensors["sharpness"] = reduced.units
    tensors["mean"] = reduced.mean
    vectors = item_vectors(model, reduced)[data.mask.any(axis=1)]
    tensors["default"] = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    tensors["confidence"] = confidence_of_parts(data.knowledge_parts, run.confidence)
    metrics: dict[str, float] = {}
    if chosen is not None and chosen.figures is not None:
        metrics = {
            "held_out_recall@20": round(chosen.figures.recall, 4),
            "held_out_ndcg@20": round(chosen.figures.ndcg, 4),
            "confidence_without_knowledge": run.confidence,
        }
    interactions = data.train if data.everything is None else data.everything
    space = Space(
        name=name,
        kinds=(EntityKind.ITEM, EntityKind.USER),
        encoder_id=data.raw.encoder_id,
        adaptor_id=ADAPTOR_ID,
        parts=data.raw.parts,
        part_dim=data.raw.part_dim,
        dim=options.dim,
        metric="dot",  # an item's length says how much is known of it
        user_vectors="histories",
        fitted_on={
            RAW_SPACE: data.raw.name,
            **model.shape.declared(),
            "items": len(np.unique(interactions.items)),
            "users": len(interactions),
            "interactions": len(interactions.items),
            "epochs": options.epochs if chosen is None else chosen.epochs,
            "options": json.dumps(options.declared(), sort_keys=True),
            **data.hashes,
        },
        metrics=metrics,
    )
    return LearnAdaptor.from_tensors(space, tensors)


def _digest(data: LearnData, options: LearnOptions) -> str:
    """Return what two trainings share only if one may go on where the other stopped."""
    hasher = blake2b(digest_size=16)
    hasher.update(json.dumps(options.declared(), sort_keys=True).encode())
    hasher.update(np.ascontiguousarray(data.mask).tobytes())
    hasher.update(np.ascontiguousarray(data.parts).data)
    for sequences in (data.train, data.everything):
        if sequences is not None:
            hasher.update(np.ascontiguousarray(sequences.items).data)
            hasher.update(np.ascontiguousarray(sequences.starts).data)
            if sequences.at_ms is not None:
                hasher.update(np.ascontiguousarray(sequences.at_ms).data)
    if (asked := data.held_out) is not None:
        found = asked.positives
        for rows in (asked.rows, asked.candidates, found.users, found.candidates):
            hasher.update(np.ascontiguousarray(rows).data)
    return hasher.hexdigest()


def _score(report: EpochReport) -> float:
    """Return recall and NDCG together: either alone moves by chance from epoch to epoch."""
    return -1.0 if report.figures is None else sum(report.figures)


def _plain(report: EpochReport) -> list[object]:
    figures = None if report.figures is None else list(report.figures)
    return [report.stage, report.epochs, report.loss, figures]


def _report(plain: object) -> EpochReport:
    stage, epochs, loss, figures = _listed(plain)
    return EpochReport(
        str(stage),
        int(str(epochs)),
        None if loss is None else float(str(loss)),
        None if figures is None else HeldOutFigures(*(float(str(one)) for one in _listed(figures))),
    )


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"a list was saved, found {type(value).__name__}")
    return value


def _dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"a dict was saved, found {type(value).__name__}")
    return value


def without_knowledge(data: LearnData) -> LearnData:
    """Return the same data with no knowledge part of any item: what knowledge is compared with."""
    mask = data.mask & ~data.knowledge_parts
    return replace(data, mask=mask, parts=np.where(mask[:, :, None], data.parts, np.float32(0)))
