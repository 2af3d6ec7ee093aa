"""Chooses the user tower of a space by its adaptor."""

from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.spaces import Space
from workers.adaptors import hein, learn, parts_pca, raw
from workers.adaptors.adaptor import Adaptor
from workers.adaptors.space_files import load_space
from workers.towers.hein_tower import HeinTower
from workers.towers.learn_tower import LearnTower
from workers.towers.recency_mean import RecencyMean
from workers.towers.two_tastes import TasteRule
from workers.towers.user_tower import UserTower

_MEAN_ADAPTORS = frozenset({raw.ADAPTOR_ID, parts_pca.ADAPTOR_ID})
_TRAINED_ADAPTORS = frozenset({learn.ADAPTOR_ID, hein.ADAPTOR_ID})


@dataclass(frozen=True, slots=True)
class TowerOptions:
    """What towers without training have to be told, and where the trained ones are."""

    half_life_ms: float
    negative_share: float = 0.25
    spaces_dir: Path = field(kw_only=True)


def tower_of(space: Space, options: TowerOptions) -> UserTower:
    """Return the tower that makes a space's user vectors; raises ConfigurationError.

    A trained one is read from the spaces directory.
    """
    if space.adaptor_id in _MEAN_ADAPTORS:
        return RecencyMean(space, options.half_life_ms, options.negative_share)
    if space.adaptor_id not in _TRAINED_ADAPTORS:
        raise _no_tower(space)
    return trained_tower(_adaptor(space, options.spaces_dir))


def trained_tower(adaptor: Adaptor) -> UserTower:
    """Return the user tower of a trained space; raises ConfigurationError when there is none."""
    match adaptor:
        case learn.LearnAdaptor():
            return LearnTower(adaptor)
        case hein.HeinAdaptor():
            return HeinTower(adaptor, TasteRule.of(adaptor.space.name, adaptor.space.fitted_on))
        case _:
            raise _no_tower(adaptor.space)


def _adaptor(space: Space, directory: Path) -> Adaptor:
    loaded = load_space(directory, space.name)
    if loaded.space != space:
        raise ConfigurationError(
            f"space {space.name}", f"{directory} holds another space of that name"
        )
    return loaded.adaptor


def _no_tower(space: Space) -> ConfigurationError:
    return ConfigurationError(
        f"space {space.name}", f"no user tower goes with the adaptor {space.adaptor_id}"
    )
