"""A cache of encoded texts on disk: fits, trainings and evaluations encode the same ones again.

`<dir>/<encoder id>/*.npy`, each file a table of (fingerprint of the text, vector) that appears
whole and never changes, so that any number of processes may read and add at once. A file that
cannot be read is left out: its texts are encoded again. Deleting the directory loses only time.
"""

import os
import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.fingerprints import text_fingerprint
from workers.encoding.text_encoder import TextEncoder, Vectors

FLUSH_TEXTS = 8_192
"""What a crash loses at most: a minute or two of encoding."""

_ASIDE_PREFIX = ".new-"


class TextCache:
    """The known texts of one encoder, at float16: what the representation rounds to anyway."""

    def __init__(self, directory: Path, encoder_id: str, dim: int) -> None:
        self._directory = directory / encoder_id
        self._row = np.dtype([("fingerprint", "S32"), ("vector", "<f2", (dim,))])
        self._known: dict[bytes, npt.NDArray[np.float16]] = {}
        self._new: dict[bytes, npt.NDArray[np.float16]] = {}
        for path in sorted(self._directory.glob("*.npy")):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return
        if table.dtype == self._row:
            self._known.update(zip(table["fingerprint"].tolist(), table["vector"], strict=True))

    def get(self, text: str) -> npt.NDArray[np.float16] | None:
        """Return the vector (dim,) of a text, None if it is not known."""
        return self._known.get(text_fingerprint(text).encode())

    def put(self, text: str, vector: Vectors) -> None:
        """Note the vector (dim,) of a text; it is on disk after the next `flush`."""
        key = text_fingerprint(text).encode()
        self._known[key] = self._new[key] = vector.astype(np.float16)
        if len(self._new) >= FLUSH_TEXTS:
            self.flush()

    def flush(self) -> None:
        """Write what is new; a directory that cannot be written to keeps nothing."""
        if not self._new:
            return
        table = np.array(list(self._new.items()), self._row)
        digest = blake2b(b"".join(sorted(self._new)), digest_size=16).hexdigest()
        self._new = {}
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=_ASIDE_PREFIX, dir=self._directory)
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, table, allow_pickle=False)
            Path(aside).rename(self._directory / f"{digest}.npy")
        except OSError:
            Path(aside).unlink(missing_ok=True)


class CachedEncoder:
    """A TextEncoder that asks another one only for texts which the cache lacks."""

    def __init__(self, encoder: TextEncoder, cache: TextCache) -> None:
        self._encoder = encoder
        self._cache = cache

    @property
    def encoder_id(self) -> str:
        """The id of the encoder behind it."""
        return self._encoder.encoder_id

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._encoder.dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 of float16 precision, row i of text i. Blocks."""
        found = [self._cache.get(text) for text in texts]
        lacking = [text for text, vector in zip(texts, found, strict=True) if vector is None]
        if lacking:
            distinct = list(dict.fromkeys(lacking))
            for text, vector in zip(distinct, self._encoder.encode(distinct), strict=True):
                self._cache.put(text, vector)
            found = [self._cache.get(text) for text in texts]
        rows = [vector for vector in found if vector is not None]
        return np.array(rows, np.float32).reshape(len(rows), self.dim)
