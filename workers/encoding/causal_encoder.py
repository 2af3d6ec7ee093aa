"""The encoder of the LEARN paper (CEX): a causal language model, read instead of asked.

A text's vector is the mean of the model's last hidden states over the text's tokens, at length 1;
texts are cut at a token limit (design: learn.md section 3). Any model folder in Hugging Face form
will do, weights in safetensors; no code of a folder is ever run.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from schemas.errors import ConfigurationError
from workers.encoding.encoder_choice import TOKEN_LIMIT, Precision
from workers.encoding.text_encoder import MAX_BATCH_TOKENS, Vectors
from workers.encoding.token_batches import readable, token_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS = "*.safetensors"
# What a vector depends on; a README or a chat template is none of it.
_CONTENT = (_WEIGHTS, "config.json", "tokenizer.json", "tokenizer.model", "vocab.*", "merges.txt")


class CausalEncoder:
    """A causal language model on the CPU. Calls must not overlap.

    Use `load`. `torch.set_num_threads` is process-wide, so a process has one encoder.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        encoder_id: str,
        token_limit: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._encoder_id = encoder_id
        self._token_limit = token_limit
        self._dim = int(model.config.hidden_size)
        # Some tokenizers make nothing of an empty text, and a mean over nothing is no vector.
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._empty = [next((token for token in special if isinstance(token, int)), 0)]

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        threads: int = 1,
        precision: Precision = "float32",
        token_limit: int = TOKEN_LIMIT,
    ) -> Self:
        """Return the encoder of a model folder, using `threads` torch threads.

        Raises ConfigurationError when the folder holds no such model, or the libraries are missing.
        """
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar

            from workers.encoding.packed_linear import pack_linear_layers
        except ImportError as error:
            raise ConfigurationError("encoder", f"the encode extra is missing: {error}") from error
        if not any(folder.glob(_WEIGHTS)):
            raise ConfigurationError(
                "FRESHET_ENCODE__ENCODER", f"{folder} holds no weights ({_WEIGHTS})"
            )
        torch.set_num_threads(threads)
        # The bar would be written into the log of every process.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            # Without the head: what it would say next is not wanted.
            model = AutoModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError("FRESHET_ENCODE__ENCODER", f"{folder}: {error}") from error
        model.eval()
        pack_linear_layers(model, precision)
        limit = min(token_limit, getattr(model.config, "max_position_embeddings", token_limit))
        encoder_id = f"cex-{model.config.model_type}-{_digest(folder)}-mean{limit}"
        return cls(model, tokenizer, encoder_id=encoder_id, token_limit=limit)

    @property
    def encoder_id(self) -> str:
        """`cex-`, kind of model, twelve digits of the folder's digest, pooling and token limit."""
        return self._encoder_id

    @property
    def dim(self) -> int:
        """The model's hidden size."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit vectors, row i of text i; each distinct text runs once."""
        import torch

        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        out = np.empty((len(distinct), self._dim), np.float32)
        with torch.inference_mode():
            for rows, ids, mask in token_batches(self._tokens(list(distinct)), MAX_BATCH_TOKENS):
                attended = torch.from_numpy(mask)
                states = self._model(
                    input_ids=torch.from_numpy(ids), attention_mask=attended, use_cache=False
                ).last_hidden_state
                weights = attended[:, :, None].float()
                means = (states * weights).sum(dim=1) / weights.sum(dim=1)
                out[rows] = torch.nn.functional.normalize(means, dim=1).numpy()
        return out[[distinct[text] for text in texts]]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(
            [readable(text) for text in texts],
            truncation=True,
            max_length=self._token_limit,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return [some or self._empty for some in ids]


def _digest(folder: Path) -> str:
    hasher = blake2b(digest_size=6)
    for path in _content(folder):
        hasher.update(f"{path.name}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
    return hasher.hexdigest()


def _content(folder: Path) -> Iterator[Path]:
    yield from sorted({path for pattern in _CONTENT for path in folder.glob(pattern)})
