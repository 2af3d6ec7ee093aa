"""Loading the encoder of a deployment's raw space, probed before a single vector is written."""

from collections.abc import Sequence
from pathlib import Path

from schemas.errors import ConfigurationError
from workers.adaptors.raw import ADAPTOR_ID
from workers.adaptors.space_files import LoadedSpace, list_spaces, load_space
from workers.encoding.encoder_choice import EncoderChoice
from workers.encoding.load_encoder import load_encoder
from workers.encoding.parity import probe
from workers.encoding.representation import Representer
from workers.encoding.text_encoder import TextEncoder, Vectors


def raw_space_of(spaces_dir: Path) -> LoadedSpace:
    """Return the raw space of a spaces directory; raises ConfigurationError unless there is one."""
    raw = [
        loaded
        for name in list_spaces(spaces_dir)
        if (loaded := load_space(spaces_dir, name)).space.adaptor_id == ADAPTOR_ID
    ]
    if len(raw) != 1:
        names = ", ".join(loaded.space.name for loaded in raw) or "none"
        raise ConfigurationError(
            "FRESHET_ENCODE__SPACES_DIR",
            f"{spaces_dir} holds {names} as raw space, needs one; run: freshet spaces fit",
        )
    return raw[0]


def load_representer(
    spaces_dir: Path, choice: EncoderChoice, *, refuse_below: float
) -> Representer:
    """Return the representer of the raw space; raises ConfigurationError when parity fails."""
    raw = raw_space_of(spaces_dir)
    return Representer(_probed(raw, choice, refuse_below), raw.space.parts)


def representer_on_demand(
    spaces_dir: Path, choice: EncoderChoice, *, refuse_below: float
) -> Representer:
    """Return the same, its encoder loaded (seconds) and probed when a text is first encoded.

    For work that seldom has anything to encode; `represent` then raises ConfigurationError when
    parity fails.
    """
    raw = raw_space_of(spaces_dir)
    return Representer(_EncoderOnDemand(raw, choice, refuse_below), raw.space.parts)


def _probed(raw: LoadedSpace, choice: EncoderChoice, refuse_below: float) -> TextEncoder:
    encoder = load_encoder(choice)
    if encoder.encoder_id != raw.space.encoder_id:
        raise ConfigurationError(
            "FRESHET_ENCODE__ENCODER",
            f"{choice.encoder} is {encoder.encoder_id}, "
            f"space {raw.space.name} was made with {raw.space.encoder_id}",
        )
    probe(encoder, raw.golden, refuse_below)
    return encoder


class _EncoderOnDemand:
    """The encoder of a raw space; see workers.encoding.text_encoder.TextEncoder."""

    def __init__(self, raw: LoadedSpace, choice: EncoderChoice, refuse_below: float) -> None:
        self._raw = raw
        self._choice = choice
        self._refuse_below = refuse_below
        self._encoder: TextEncoder | None = None

    @property
    def encoder_id(self) -> str:
        """The id of the raw space's encoder."""
        return self._raw.space.encoder_id

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._raw.space.part_dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32 unit vectors; raises ConfigurationError when parity fails."""
        if self._encoder is None:
            self._encoder = _probed(self._raw, self._choice, self._refuse_below)
        return self._encoder.encode(texts)
