"""The life of a space, as `freshet spaces` leads it: fit, create, activate, retire, list.

The `control` topic is the truth and is written first; Redis mirrors it for lanes and rankers. A
command that was cut short may be given again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError, FreshetError
from schemas.spaces import SpaceRecord, SpaceState
from streams.clock import SystemClock
from streams.control import Control
from streams.control_mirror import ControlMirror, open_control
from streams.follow_spaces import REFRESH_SECONDS
from streams.represented_catalogue import Progress, silent
from streams.settings import Settings
from streams.space_fitting import fit
from streams.space_set import check_raw_parts
from streams.topology import SPACE_LANE_PREFIX
from workers.adaptors.raw import ADAPTOR_ID
from workers.adaptors.space_files import list_spaces as spaces_on_disk
from workers.adaptors.space_files import load_space
from workers.encoding.load_representer import raw_space_of
from workers.live.connection import run_id
from workers.live.space_vectors import Coverage, SpaceVectors
from workers.live.view_partitions import ViewPartitions

__all__ = [
    "Activation",
    "SpaceRefused",
    "SpaceStatus",
    "activate",
    "create",
    "fit",
    "list_spaces",
    "retire",
]

MAIN_WRITER = "encode"
NEEDED_SHARE = 0.999
RETIRE_SECONDS = 600.0
"""Ten times as long as rankers hold on to an alias."""

WRITER_STOPS_SECONDS = 3 * REFRESH_SECONDS
"""Within this the writer has seen that its space retires, and its batch in flight has ended."""

_LIVE = (SpaceState.BACKFILLING, SpaceState.ACTIVE)


class SpaceRefused(FreshetError):
    """What was asked would leave rankers without vectors; `space` and `detail` say why."""

    def __init__(self, space: str, detail: str) -> None:
        super().__init__(space, detail)
        self.space = space
        self.detail = detail

    def __str__(self) -> str:
        return f"space {self.space}: {self.detail}"


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """A space on disk or registered; `state` is None for one that was not created yet.

    `vectors` counts the entities it covers, by kind; `active_for` the kinds whose alias it has.
    """

    name: str
    state: SpaceState | None
    adaptor: str
    dim: int
    kinds: tuple[EntityKind, ...]
    writer: str
    vectors: Mapping[EntityKind, int]
    active_for: tuple[EntityKind, ...]
    on_disk: bool
    changed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Activation:
    """An alias that was flipped: the space before it (None: there was none), and its coverage."""

    kind: EntityKind
    before: str | None
    coverage: Coverage


async def create(settings: Settings, name: str, *, active: bool = False) -> SpaceRecord:
    """Register a space of the spaces directory, and the raw space with it if that is missing.

    The first space ever is active from the start: the encode lane writes it, and it gets the alias
    of every kind that has none. Later ones backfill by a lane of their own, `encode.<name>`, unless
    `active` says that the encode lane shall write them from now on (entities written before then
    get their vectors with `freshet rebuild`). Raises ConfigurationError, Transient.
    """
    directory = settings.encode.spaces_dir
    loaded = load_space(directory, name)
    raw = raw_space_of(directory)
    check_raw_parts(loaded.space, raw.space)
    async with open_control(settings) as mirror:
        control = mirror.control
        if name in control.spaces:
            state = control.spaces[name].state.value
            raise ConfigurationError(f"space {name}", f"already registered, {state}")
        is_first = not control.spaces
        starts_active = active or is_first
        record = SpaceRecord(
            space=loaded.space,
            state=SpaceState.ACTIVE if starts_active else SpaceState.BACKFILLING,
            writer=MAIN_WRITER if starts_active else SPACE_LANE_PREFIX + name,
            changed_at_ms=mirror.now_ms,
            default=(
                tuple(map(float, loaded.adaptor.default)) if loaded.adaptor.default.any() else None
            ),
        )
        records = [record]
        if raw.space.name not in control.spaces and raw.space.name != name:
            # Last: the encode lane waits for it, so it never writes without the one before.
            records.append(
                SpaceRecord(
                    space=raw.space,
                    state=SpaceState.ACTIVE,
                    writer=MAIN_WRITER,
                    changed_at_ms=mirror.now_ms,
                )
            )
        kinds = [
            kind for kind in loaded.space.kinds if starts_active and kind not in control.aliases
        ]
        await mirror.publish(records, kinds, name)
    return record


async def activate(
    settings: Settings, name: str, kinds: Sequence[EntityKind] | None = None
) -> list[Activation]:
    """Let rankers read a space: all the kinds it has, or those given, at once.

    Raises SpaceRefused when it lacks more than 0.1 % of the entities of the space before it, or
    while the view in Redis is being rebuilt; ConfigurationError, Transient.
    """
    async with open_control(settings) as mirror:
        record = mirror.space(name)
        if record.state not in _LIVE:
            raise SpaceRefused(name, f"it is {record.state.value}")
        chosen = tuple(record.space.kinds if kinds is None else kinds)
        foreign = [kind.value for kind in chosen if kind not in record.space.kinds]
        if foreign or not chosen:
            raise ConfigurationError(f"space {name}", f"it has no {', '.join(foreign) or 'kind'}s")
        await _require_whole_view(settings, mirror, name)
        flips = [await _cover(mirror, name, kind) for kind in chosen]
        for flip in flips:
            if flip.coverage.share < NEEDED_SHARE:
                raise SpaceRefused(
                    name,
                    f"covers {flip.coverage.covered} of {flip.coverage.total} {flip.kind.value}s "
                    f"({_floored(flip.coverage.share)}), needed {NEEDED_SHARE:.1%}",
                )
        active = mirror.with_state(record, SpaceState.ACTIVE)
        await mirror.publish([active], chosen, name)
    return flips


async def _cover(mirror: ControlMirror, name: str, kind: EntityKind) -> Activation:
    """Compare with the active space; without one, with the raw space, which has everything."""
    before = mirror.control.aliases.get(kind)
    reference = before or next(
        (
            record.space.name
            for record in mirror.control.spaces.values()
            if record.space.adaptor_id == ADAPTOR_ID and kind in record.space.kinds
        ),
        name,
    )
    return Activation(kind, before, await _vectors(mirror).coverage(reference, name, kind))


async def _require_whole_view(settings: Settings, mirror: ControlMirror, name: str) -> None:
    # A Redis that came back empty covers everything there is.
    redis = mirror.redis
    verified = await ViewPartitions(redis.client, redis.keys).load()
    answering = await run_id(redis.client)
    missing = [p for p in range(settings.kafka.partitions) if verified.get(p) != answering]
    if missing:
        raise SpaceRefused(
            name, f"partitions {missing} of the view are not verified; is the encode lane running?"
        )


async def retire(
    settings: Settings,
    name: str,
    *,
    after_seconds: float = RETIRE_SECONDS,
    progress: Progress = silent,
) -> int:
    """Stop writing a space, and delete its vectors after a while; return how many there were.

    The time counts from when it was first told to retire. Raises SpaceRefused for a space that
    rankers read or that others are made from; ConfigurationError, Transient.
    """
    async with open_control(settings) as mirror:
        record = mirror.space(name)
        _require_idle(mirror.control, record)
        if record.state in _LIVE:
            record = mirror.with_state(record, SpaceState.RETIRING)
            await mirror.publish([record])
        waited = (mirror.now_ms - record.changed_at_ms) / 1000
        await _wait(max(WRITER_STOPS_SECONDS, after_seconds - waited), progress)
        deleted = 0
        for kind in record.space.kinds:
            progress(f"deleting {kind.value}s", 0, 0)
            deleted += await _vectors(mirror).delete(name, kind)
        # Its time is that of the last word on the space, not of the command's start.
        retired = record.model_copy(
            update={"state": SpaceState.RETIRED, "changed_at_ms": SystemClock().now_ms()}
        )
        await mirror.publish([retired])
    return deleted


def _require_idle(control: Control, record: SpaceRecord) -> None:
    name = record.space.name
    active_for = [f"{kind.value}s" for kind, alias in control.aliases.items() if alias == name]
    if active_for:
        raise SpaceRefused(name, f"it is active for {', '.join(active_for)}")
    if record.space.adaptor_id == ADAPTOR_ID:
        others = [
            other.space.name
            for other in control.spaces.values()
            if other.space.name != name and other.state in _LIVE
        ]
        if others:
            raise SpaceRefused(name, f"{', '.join(sorted(others))} are made from its parts")


async def _wait(seconds: float, progress: Progress) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        progress("waiting", round(seconds - left), round(seconds))
        await asyncio.sleep(min(1.0, left))


async def list_spaces(settings: Settings) -> list[SpaceStatus]:
    """Return every space, by name, with the number of its vectors; raises Transient.

    Counting walks all keys of Redis once a space.
    """
    directory = settings.encode.spaces_dir
    on_disk = spaces_on_disk(directory)
    found: list[SpaceStatus] = []
    async with open_control(settings) as mirror:
        control = mirror.control
        for name in sorted({*on_disk, *control.spaces}):
            record = control.spaces.get(name)
            space = load_space(directory, name).space if record is None else record.space
            counted = () if record is None else space.kinds
            found.append(
                SpaceStatus(
                    name=name,
                    state=None if record is None else record.state,
                    adaptor=space.adaptor_id,
                    dim=space.dim,
                    kinds=space.kinds,
                    writer="" if record is None else record.writer,
                    vectors={kind: await _vectors(mirror).count(name, kind) for kind in counted},
                    active_for=tuple(
                        kind for kind, alias in control.aliases.items() if alias == name
                    ),
                    on_disk=name in on_disk,
                    changed_at_ms=None if record is None else record.changed_at_ms,
                )
            )
    return found


def _vectors(mirror: ControlMirror) -> SpaceVectors:
    return SpaceVectors(mirror.redis.client, mirror.redis.keys)


def _floored(share: float) -> str:
    # Rounding would call 99.89 % enough.
    return f"{int(share * 1000) / 10:.1f}%"
