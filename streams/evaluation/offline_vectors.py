"""Vectors as the lanes would write them, made in this process from raw parts and histories.

Same adaptor, same tower, same weights of actions, same precision as in Redis.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.entities import EntityKey
from schemas.errors import ConfigurationError
from schemas.history import History
from schemas.spaces import Space
from schemas.vector_record import HEADER
from streams.evaluation.cold_start_scores import NamedVectors
from streams.lanes.laid_histories import portions
from workers.adaptors.adaptor import Adaptor
from workers.adaptors.raw import ADAPTOR_ID as RAW
from workers.adaptors.raw import RawAdaptor
from workers.towers.significance import Significance
from workers.towers.user_tower import UserTower


@dataclass(frozen=True, slots=True)
class RawItems:
    """Items with raw parts: `parts` (n, P, d) float32 and `mask` (n, P), row i of `ids[i]`."""

    ids: Sequence[str]
    parts: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OfflineVectors:
    """Items and users in one space, and how many of each a second were made by this process."""

    items: NamedVectors
    users: NamedVectors
    items_per_second: float
    users_per_second: float


def offline_vectors(
    adaptor: Adaptor,
    tower: UserTower,
    items: RawItems,
    histories: Mapping[EntityKey, History],
    significance: Significance,
) -> OfflineVectors:
    """Return the vectors of all items, and of the users that there is anything to make from.

    Raises ConfigurationError when the tower reads a space that cannot be made from raw parts.
    """
    started = time.perf_counter()
    values = item_vectors(adaptor, items)
    made = time.perf_counter()
    read = tower_input(adaptor, tower, items, values)
    users = _users(tower, read, items, histories, significance)
    ended = time.perf_counter()
    return OfflineVectors(
        NamedVectors(items.ids, values),
        users,
        items_per_second=len(items.ids) / max(made - started, 1e-9),
        users_per_second=len(histories) / max(ended - made, 1e-9),
    )


def bytes_per_item(space: Space) -> int:
    """Return the bytes of a stored vector: header and values."""
    return HEADER.size + space.dim * np.dtype(space.dtype).itemsize


def item_vectors(adaptor: Adaptor, items: RawItems) -> npt.NDArray[np.floating]:
    """Return (n, dim) of the space's precision."""
    return _stored(adaptor.apply(items.parts, items.mask), adaptor.space)


def tower_input(
    adaptor: Adaptor, tower: UserTower, items: RawItems, values: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Return the items as the tower prepares them, from `values`, their vectors, or raw parts.

    Raises ConfigurationError when it reads a space that cannot be made from raw parts.
    """
    source = tower.input_space
    if source.name == adaptor.space.name:
        return tower.prepare(values.astype(np.float32))
    if source.adaptor_id != RAW:
        raise ConfigurationError(
            f"space {adaptor.space.name}", f"its users are made from the space {source.name}"
        )
    raw = _stored(RawAdaptor(source).apply(items.parts, items.mask), source)
    return tower.prepare(raw.astype(np.float32))


def _users(
    tower: UserTower,
    values: npt.NDArray[np.float32],
    items: RawItems,
    histories: Mapping[EntityKey, History],
    significance: Significance,
) -> NamedVectors:
    row = {id_: place for place, id_ in enumerate(items.ids)}
    # One row more for items that there are no parts of.
    table = np.concatenate([values, np.zeros((1, values.shape[1]), np.float32)])
    ids: list[str] = []
    vectors = [np.zeros((0, tower.space.dim), tower.space.dtype)]
    for users in portions(histories, significance):
        rows = np.array([row.get(item.id, len(row)) for item in users.items], np.int64)
        made, there = users.through(tower, table[rows], rows < len(row))
        ids += [user.id for user, is_there in zip(users.users, there, strict=True) if is_there]
        vectors.append(_stored(made[there], tower.space))
    return NamedVectors(ids, np.concatenate(vectors))


def _stored(vectors: npt.NDArray[np.float32], space: Space) -> npt.NDArray[np.floating]:
    return vectors.astype(space.dtype)
