"""Loading the encoder of a deployment's raw space, probed before a single vector is written."""

from pathlib import Path

from schemas.errors import ConfigurationError
from workers.adaptors.raw import ADAPTOR_ID
from workers.adaptors.space_files import LoadedSpace, list_spaces, load_space
from workers.encoding.parity import probe
from workers.encoding.representation import Representer
from workers.encoding.text_encoder import MiniLmEncoder


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


def load_representer(spaces_dir: Path, *, threads: int, refuse_below: float) -> Representer:
    """Return the representer of the raw space; raises ConfigurationError when parity fails."""
    raw = raw_space_of(spaces_dir)
    encoder = MiniLmEncoder.load(threads)
    probe(encoder, raw.golden, refuse_below)
    return Representer(encoder, raw.space.parts)
