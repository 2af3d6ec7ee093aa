"""The life of groups, as `freshet groups` leads it: build, activate, list, request.

A cut is a directory that never changes; which one is in use is a record of the `control` topic,
which is written first, and which Redis mirrors for the lanes. A command that was cut short may be
given again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.entities import EntityKey, EntityKind
from schemas.errors import ConfigurationError
from schemas.fingerprints import knowledge_fingerprint
from schemas.groups import GroupsRecord
from schemas.knowledge import Document, Factors, KnowledgeRequest
from schemas.topics import Topic
from streams.clock import SystemClock
from streams.control import Control, read_control
from streams.control_mirror import open_control
from streams.emitter import KafkaEmitter, Outgoing
from streams.lanes.group_requests import group_request
from streams.redis_clients import open_redis
from streams.represented_catalogue import Progress, Source, represent_catalogue, silent
from streams.settings import Settings
from workers.encoding.load_encoder import EncoderLoader, load_encoder
from workers.encoding.load_representer import raw_space_of
from workers.grouping.depth import Depth
from workers.grouping.group_files import list_groups as groups_on_disk
from workers.grouping.group_files import load_groups, load_with_digest, save_groups
from workers.grouping.groups import Groups
from workers.grouping.make_groups import Cut, make_groups
from workers.knowledge.load_domain import load_domain
from workers.knowledge.select_prompt import prompt_id_of
from workers.live.entity_store import EntityStore

GROUP_ITEMS = 20_000
"""Groups are made of so many items at most, a fair sample; the others find the nearest group."""

_KIND = EntityKind.ITEM
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Built:
    """New groups on disk; `kept_ids` counts those whose id is one of the old cut's.

    `depth` is that of the tree they were cut from, None without a tree; `degenerate` says that it
    is so deep that the groups are not to be trusted.
    """

    directory: Path
    groups: int
    members: int
    largest: int
    singletons: int
    kept_ids: int
    depth: Depth | None
    degenerate: bool


@dataclass(frozen=True, slots=True)
class GroupsStatus:
    """A cut on disk or in use; counts are 0 for one that is in use but not on this disk."""

    name: str
    kind: EntityKind
    groups: int
    members: int
    largest: int
    is_active: bool
    on_disk: bool
    changed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Requested:
    """What `request` put on the backlog, and how many groups needed nothing."""

    name: str
    requested: int
    current: int
    dry_run: bool


async def build(
    settings: Settings,
    name: str,
    *,
    catalog: Source,
    cut: Cut,
    old: str | None = None,
    progress: Progress = silent,
    load_encoder: EncoderLoader = load_encoder,
) -> Built:
    """Make groups of a catalogue's items and put them into the groups directory.

    `old` names a cut on disk whose ids go to the new groups with mostly the same members.
    Raises ConfigurationError, Transient("kafka").
    """
    directory = settings.groups.dir
    before = None if old is None else load_groups(directory, old)
    if name in groups_on_disk(directory):
        raise ConfigurationError(f"groups {name}", f"{directory / name} is there already")
    catalogue = await represent_catalogue(
        settings,
        catalog=catalog,
        knowledge=None,
        limit=GROUP_ITEMS,
        progress=progress,
        load_encoder=load_encoder,
    )
    progress("grouping", 0, 0)
    made = await asyncio.to_thread(
        make_groups,
        name,
        catalogue.keys,
        [
            {} if document.content is None else document.content.fields
            for document in catalogue.documents
        ],
        catalogue.parts,
        catalogue.mask,
        part_names=catalogue.raw.parts,
        encoder_id=catalogue.raw.encoder_id,
        cut=cut,
        old=before,
    )
    target = save_groups(directory, made.groups)
    sizes = [group.size for group in made.groups.groups]
    return Built(
        directory=target,
        groups=len(sizes),
        members=made.members,
        largest=max(sizes),
        singletons=sizes.count(1),
        kept_ids=made.kept,
        depth=made.depth,
        degenerate=made.depth is not None
        and made.depth.is_degenerate(settings.groups.max_depth_ratio),
    )


async def activate(settings: Settings, name: str) -> str | None:
    """Let the lanes use a cut; return the name of the one before it, None if there was none.

    Raises ConfigurationError when it is not on disk or made from another encoder's parts, and
    Transient.
    """
    loaded = load_with_digest(settings.groups.dir, name)
    raw = raw_space_of(settings.encode.spaces_dir).space
    if (loaded.groups.encoder_id, loaded.groups.part_dim) != (raw.encoder_id, raw.part_dim):
        raise ConfigurationError(
            f"groups {name}",
            f"made from parts of {loaded.groups.encoder_id}, the raw space is {raw.encoder_id}",
        )
    async with open_control(settings) as mirror:
        before = mirror.control.groups.get(loaded.groups.kind)
        await mirror.publish_groups(
            GroupsRecord(
                kind=loaded.groups.kind,
                name=name,
                digest=loaded.digest,
                changed_at_ms=mirror.now_ms,
            )
        )
    return None if before is None else before.name


async def list_groups(settings: Settings) -> list[GroupsStatus]:
    """Return every cut on disk or in use, by name; raises Transient("kafka")."""
    directory = settings.groups.dir
    on_disk = groups_on_disk(directory)
    active = (await read_control(settings.kafka)).groups
    used = {record.name: record for record in active.values()}
    found: list[GroupsStatus] = []
    for name in sorted({*on_disk, *used}):
        groups = load_groups(directory, name) if name in on_disk else None
        sizes = [] if groups is None else [group.size for group in groups.groups]
        found.append(
            GroupsStatus(
                name=name,
                kind=used[name].kind if groups is None else groups.kind,
                groups=len(sizes),
                members=sum(sizes),
                largest=max(sizes, default=0),
                is_active=name in used,
                on_disk=groups is not None,
                changed_at_ms=used[name].changed_at_ms if name in used else None,
            )
        )
    return found


async def request(
    settings: Settings,
    *,
    everything: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Requested:
    """Put a request about groups in use on the backlog, for rankers that read their texts.

    Only about those without knowledge, or with knowledge that the current exemplars, prompt or
    model did not make; about all of them with `everything`. Raises ConfigurationError without
    groups in use, Transient; a request may be sent twice after that, and costs one call.
    """
    groups = _in_use(settings, await read_control(settings.kafka))
    now_ms = SystemClock().now_ms()
    requests = [group_request(groups, row, now_ms) for row in range(len(groups.groups))]
    documents = await _documents(settings, [one.entity for one in requests])
    prompt_id = _prompt_id(settings)
    wanted: list[KnowledgeRequest] = []
    for one in requests:
        written = _written(one, documents[one.entity], prompt_id, settings.knowledge.model)
        if written is None:
            wanted.append(one)
        elif everything:
            # Under a new version the lane would stamp the same text anew instead of writing one.
            wanted.append(replace(one, version=written.version))
    if not dry_run:
        await _emit(settings, wanted, progress)
    return Requested(groups.name, len(wanted), len(requests) - len(wanted), dry_run)


def _in_use(settings: Settings, control: Control) -> Groups:
    record = control.groups.get(_KIND)
    if record is None:
        raise ConfigurationError("groups", "none are in use; run: freshet groups activate")
    loaded = load_with_digest(settings.groups.dir, record.name)
    if loaded.digest != record.digest:
        raise ConfigurationError(
            f"groups {record.name}", f"{settings.groups.dir} holds another cut of that name"
        )
    return loaded.groups


async def _documents(settings: Settings, keys: Sequence[EntityKey]) -> dict[EntityKey, Document]:
    found: dict[EntityKey, Document] = {}
    async with open_redis(settings.redis) as redis:
        store = EntityStore(redis.client, redis.keys)
        for start in range(0, len(keys), _BATCH):
            stored = await store.load(keys[start : start + _BATCH], None)
            found |= {one.key: one.document for one in stored}
    return found


def _written(
    request: KnowledgeRequest, document: Document, prompt_id: str, model: str
) -> Factors | None:
    """Return what is written about a group, if the very same was asked for."""
    fingerprint = knowledge_fingerprint(request.content_fingerprint, prompt_id, model)
    factors = document.individual
    is_same = factors is not None and factors.provenance.fingerprint == fingerprint
    return factors if is_same else None


def _prompt_id(settings: Settings) -> str:
    knowledge = settings.knowledge
    domain = load_domain(
        knowledge.domain,
        factors=knowledge.factors,
        max_factor_chars=knowledge.max_factor_chars,
        max_tokens=knowledge.max_tokens,
    )
    return prompt_id_of(domain, EntityKind.GROUP)


async def _emit(
    settings: Settings, requests: Sequence[KnowledgeRequest], progress: Progress
) -> None:
    emitter = KafkaEmitter(settings.kafka)
    try:
        for start in range(0, len(requests), _BATCH):
            progress("requesting", start, len(requests))
            await emitter.emit(
                [
                    Outgoing(Topic.KNOWLEDGE_BACKLOG, one.entity.encode(), one.encode())
                    for one in requests[start : start + _BATCH]
                ]
            )
    finally:
        await emitter.aclose()
