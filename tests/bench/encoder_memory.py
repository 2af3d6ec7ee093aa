"""What an encoder adds to its process: `python -m tests.bench.encoder_memory CHOICE FILE`.

CHOICE is the JSON of an EncoderChoice. A process of its own, because memory once taken is not all
given back.
"""

import json
import os
import sys
from pathlib import Path

import torch  # counted as the libraries' part, not the encoder's
import transformers  # noqa: F401

from tests.bench.films import document
from tests.bench.memory import rss_megabytes
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.representation import DEFAULT_PARTS, part_texts

_ITEMS = 2


def main(choice: EncoderChoice, answer: Path) -> None:
    """Write the process's memory without the encoder, with it, and after some work, in MB."""
    torch.set_num_threads(choice.threads)
    without = rss_megabytes(os.getpid())
    encoder = load_encoder(choice)
    loaded = rss_megabytes(os.getpid())
    for number in range(_ITEMS):
        encoder.encode([text for text in part_texts(document(number), DEFAULT_PARTS) if text])
    worked = rss_megabytes(os.getpid())
    facts = {"without": without, "loaded": loaded, "worked": worked}
    answer.write_text(json.dumps({**facts, "encoder_id": encoder.encoder_id}), "utf-8")


if __name__ == "__main__":
    main(EncoderChoice(**json.loads(sys.argv[1])), Path(sys.argv[2]))
