"""A catalogue as raw parts: what fitting, training and evaluation start from.

From files or from the compacted topics; the parts are those that the lanes would make. What the
`representations` topic has is not encoded again, and neither is a text that was encoded before on
this machine (workers.encoding.text_cache).
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError, InvalidInput, Permanent
from schemas.events import ContentPolicy, DecodeLimits
from schemas.knowledge import Document, EntityRecord, Factors
from schemas.representation_record import RepresentationRecord
from schemas.spaces import Space
from schemas.topics import Topic
from streams.catalogue_files import KeySample, catalogue_document, recorded_factors
from streams.clock import SystemClock
from streams.compacted import read_compacted
from streams.entity_log import entity_partitions
from streams.known_parts import is_of, known_row
from streams.settings import Settings
from workers.adaptors.raw import ADAPTOR_ID, RawAdaptor, raw_adaptor
from workers.adaptors.space_files import LoadedSpace, list_spaces, load_space, save_space
from workers.encoding.load_encoder import EncoderLoader, load_encoder
from workers.encoding.parity import Golden
from workers.encoding.representation import CONTENT, TITLE, Representer
from workers.encoding.text_cache import CachedEncoder, TextCache
from workers.encoding.text_encoder import TextEncoder

TOPIC: Literal["topic"] = "topic"
Source: TypeAlias = Path | Literal["topic"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, of how much; 0 where that is unknown)."""

NO_LIMIT = 2**62

_CHUNK = 64
_PROGRESS_LINES = 1_000


def silent(_what: str, _done: int, _total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class RepresentedCatalogue:
    """Items by key, with their raw parts.

    `parts` is (n, P, d) float32 of float16 precision, zeros where `mask` (n, P) is False; `raw`
    declares the P parts and the encoder, whose golden texts `golden` holds. `documents` is what the
    parts were made from.
    """

    keys: tuple[EntityKey, ...]
    parts: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    raw: Space
    golden: Golden
    documents: tuple[Document, ...]

    def save_raw_space(self, directory: Path) -> None:
        """Make sure the raw space is in a spaces directory: every other one starts from it.

        Raises ConfigurationError when another one of its name is there.
        """
        if self.raw.name not in list_spaces(directory):
            save_space(directory, RawAdaptor(self.raw), self.golden)


async def represent_catalogue(
    settings: Settings,
    *,
    catalog: Source,
    knowledge: Source | None,
    limit: int = NO_LIMIT,
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> RepresentedCatalogue:
    """Return the items of a catalogue that have content, at most `limit` (a fair sample).

    `catalog` and `knowledge` are JSONL files or "topic"; without knowledge only content parts are
    there. The parts are those of the raw space in `settings.encode.spaces_dir`; where there is none
    those of the settings, by the installed encoder. `load_encoder` gets the choice of the settings.
    Raises ConfigurationError, Transient("kafka").
    """
    documents = await _documents(settings, catalog, knowledge, limit, progress)
    return await represent_documents(
        settings,
        documents,
        from_topics=TOPIC in (catalog, knowledge),
        progress=progress,
        load_encoder=load_encoder,
    )


async def represent_documents(
    settings: Settings,
    documents: Mapping[EntityKey, Document],
    *,
    from_topics: bool = False,
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> RepresentedCatalogue:
    """Return the raw parts of documents, in their order; see `represent_catalogue`.

    With `from_topics` the recorded representations are looked up first.
    """
    known = _raw_space(settings.encode.spaces_dir)
    encoder = _EncoderOnDemand(lambda: load_encoder(settings.encode.choice), known)
    parts = (TITLE, CONTENT, *settings.knowledge.factors) if known is None else known.space.parts
    raw = (
        raw_adaptor(encoder.encoder_id, parts, encoder.dim).space if known is None else known.space
    )
    recorded: Mapping[EntityKey, RepresentationRecord] = {}
    if from_topics:
        recorded = await _representations(settings, raw, documents, progress)
    cache = TextCache(settings.encode.cache_dir, encoder.encoder_id, encoder.dim)
    representer = Representer(CachedEncoder(encoder, cache), parts)
    values, mask = await asyncio.to_thread(_represent, representer, documents, recorded, progress)
    cache.flush()
    golden = await asyncio.to_thread(Golden.record, encoder) if known is None else known.golden
    return RepresentedCatalogue(
        tuple(documents), values, mask, raw, golden, tuple(documents.values())
    )


def _raw_space(directory: Path) -> LoadedSpace | None:
    for name in list_spaces(directory):
        loaded = load_space(directory, name)
        if loaded.space.adaptor_id == ADAPTOR_ID:
            return loaded
    return None


class _EncoderOnDemand:
    """The raw space's encoder, loaded when first needed (seconds) and checked to be that one."""

    def __init__(self, load: Callable[[], TextEncoder], known: LoadedSpace | None) -> None:
        self._load = load
        self._known = None if known is None else known.space
        self._encoder: TextEncoder | None = None

    @property
    def encoder_id(self) -> str:
        """The id of the raw space's encoder, or of the installed one if there is no raw space."""
        return self._loaded().encoder_id if self._known is None else self._known.encoder_id

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._loaded().dim if self._known is None else self._known.part_dim

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32; raises ConfigurationError when it is not the raw space's."""
        return self._loaded().encode(texts)

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            encoder = self._load()
            if self._known is not None and encoder.encoder_id != self._known.encoder_id:
                raise ConfigurationError(
                    f"space {self._known.name}",
                    f"made by {self._known.encoder_id}, installed is {encoder.encoder_id}",
                )
            self._encoder = encoder
        return self._encoder


# ---- the documents ----------------------------------------------------------------------------


async def _documents(
    settings: Settings, catalog: Source, knowledge: Source | None, limit: int, progress: Progress
) -> dict[EntityKey, Document]:
    """Return the items with content, and with the knowledge that was asked for."""
    sample = KeySample(limit)
    if isinstance(catalog, Path):
        await asyncio.to_thread(_read_catalogue, settings, catalog, sample, progress)
    else:
        await _read_entities(settings, sample, None, progress)
    documents = dict(sample.live())
    if not documents:
        raise ConfigurationError("catalog", f"{catalog} holds no items")
    contents = {key: Document(content=document.content) for key, document in documents.items()}
    if knowledge is None:
        return contents
    if isinstance(knowledge, Path):
        written = await asyncio.to_thread(_read_knowledge, knowledge, contents.keys(), progress)
        return {
            key: replace(document, individual=written.get(key))
            for key, document in contents.items()
        }
    if isinstance(catalog, Path):
        sample = KeySample(len(contents))
        await _read_entities(settings, sample, contents.keys(), progress)
        documents = sample.documents
    return {
        key: replace(
            document,
            collective=documents[key].collective if key in documents else None,
            individual=documents[key].individual if key in documents else None,
        )
        for key, document in contents.items()
    }


def _read_catalogue(settings: Settings, path: Path, sample: KeySample, progress: Progress) -> None:
    items = settings.items
    policy = ContentPolicy(frozenset(items.semantic_fields))
    limits = DecodeLimits(items.max_record_bytes, round(items.max_clock_skew_seconds * 1000))
    now_ms = SystemClock().now_ms()
    for number, line in _lines(path, "catalog", progress):
        try:
            sample.add(*catalogue_document(line, policy, limits, now_ms=now_ms))
        except InvalidInput as error:
            raise ConfigurationError("catalog", f"{path}: line {number}: {error}") from error


def _read_knowledge(
    path: Path, wanted: Collection[EntityKey], progress: Progress
) -> dict[EntityKey, Factors]:
    written: dict[EntityKey, Factors] = {}
    for number, line in _lines(path, "knowledge", progress):
        try:
            key, factors = recorded_factors(line)
        except InvalidInput as error:
            raise ConfigurationError("knowledge", f"{path}: line {number}: {error}") from error
        if key in wanted:
            written[key] = factors
    return written


def _lines(path: Path, setting: str, progress: Progress) -> Iterator[tuple[int, bytes]]:
    try:
        total, passed = path.stat().st_size, 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                passed += len(line)
                if number % _PROGRESS_LINES == 0:
                    progress(f"reading {path.name}", passed, total)
                if line.strip():
                    yield number, line
        progress(f"reading {path.name}", total, total)
    except OSError as error:
        raise ConfigurationError(setting, f"{path}: {error.strerror}") from error


async def _read_entities(
    settings: Settings,
    sample: KeySample,
    wanted: Collection[EntityKey] | None,
    progress: Progress,
) -> None:
    """Take the items of the `entities` topic into the sample, or only the wanted ones of them."""
    partitions = entity_partitions(
        settings.kafka,
        on_progress=lambda done, total: progress(f"reading {Topic.ENTITIES}", done, total),
    )
    async for partition in partitions:
        for value in partition.values.values():
            record = EntityRecord.decode(value)
            if record.entity.kind is EntityKind.ITEM and (
                wanted is None or record.entity in wanted
            ):
                sample.add(record.entity, record.document)


async def _representations(
    settings: Settings, raw: Space, documents: Collection[EntityKey], progress: Progress
) -> dict[EntityKey, RepresentationRecord]:
    """Return the last representation of each wanted item that has one of this raw space."""
    wanted = {key.encode(): key for key in documents}
    found: dict[EntityKey, RepresentationRecord] = {}
    async with aclosing(
        read_compacted(
            settings.kafka,
            Topic.REPRESENTATIONS,
            on_progress=lambda done, total: progress(
                f"reading {Topic.REPRESENTATIONS}", done, total
            ),
        )
    ) as records:
        async for record in records:
            key = wanted.get(record.key)
            if key is None or record.value is None:
                continue
            try:
                representation = RepresentationRecord.decode(record.value)
            except Permanent:
                continue  # encoded anew
            if is_of(representation, raw):
                found[key] = representation
    return found


def _represent(
    representer: Representer,
    documents: Mapping[EntityKey, Document],
    recorded: Mapping[EntityKey, RepresentationRecord],
    progress: Progress,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (n, P, d) float32 and (n, P) bool of the documents, in their order."""
    keys = list(documents)
    shape = (len(keys), len(representer.parts), representer.part_dim)
    values, mask = np.empty(shape, np.float32), np.empty(shape[:2], np.bool_)
    for start in range(0, len(keys), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        values[chunk], mask[chunk], _ = representer.represent(
            [known_row(representer.texts(documents[key]), recorded.get(key)) for key in keys[chunk]]
        )
        progress("encoding", min(start + _CHUNK, len(keys)), len(keys))
    return values, mask
