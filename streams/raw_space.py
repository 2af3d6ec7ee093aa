"""`freshet spaces init`: the raw space of the installed encoder, when nothing can be fitted yet.

With it alone lanes can take in a catalogue; a space fitted on what they made of it needs no second
encoding.
"""

from schemas.spaces import SpaceRecord
from streams.settings import Settings
from streams.spaces_admin import create
from workers.adaptors.raw import ADAPTOR_ID, raw_adaptor
from workers.adaptors.space_files import list_spaces, load_space, save_space
from workers.encoding.load_encoder import EncoderLoader, load_encoder
from workers.encoding.parity import Golden
from workers.encoding.representation import CONTENT, TITLE

__all__ = ["init", "make_raw_space"]


async def init(settings: Settings, *, load_encoder: EncoderLoader = load_encoder) -> SpaceRecord:
    """Make the raw space, unless it is there, and register it: the first space is active at once.

    `load_encoder` gets the choice of the settings. Raises ConfigurationError, Transient.
    """
    return await create(settings, make_raw_space(settings, load_encoder=load_encoder))


def make_raw_space(settings: Settings, *, load_encoder: EncoderLoader = load_encoder) -> str:
    """Return the name of the raw space in the spaces directory; made when there is none. Blocks."""
    directory = settings.encode.spaces_dir
    for name in list_spaces(directory):
        if load_space(directory, name).space.adaptor_id == ADAPTOR_ID:
            return name
    encoder = load_encoder(settings.encode.choice)
    parts = (TITLE, CONTENT, *settings.knowledge.factors)
    adaptor = raw_adaptor(encoder.encoder_id, parts, encoder.dim)
    save_space(directory, adaptor, Golden.record(encoder))
    return adaptor.space.name
