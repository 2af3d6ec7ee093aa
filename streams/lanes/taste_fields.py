"""What a request about a user says: the items they liked and disliked, by their titles. Pure.

Owns the choice and the wording of the two sides. Who the user is has no place in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.entities import EntityKey
from schemas.fingerprints import Json
from schemas.history import History
from workers.knowledge.preference_gate import SignificancePort
from workers.knowledge.titles import entry_of
from workers.knowledge.user_prompt import DISLIKED, LIKED

_LEAST_WEIGHT = 0.05
_SIGNALS = (
    (0.75, "loved"),
    (0.3, "liked"),
    (0.0, "some interest"),
    (-0.3, "cool on it"),
    (-0.75, "disliked"),
)
_STRONGEST_DISLIKE = "strongly disliked"


@dataclass(frozen=True, slots=True)
class TasteBounds:
    """How many titles each side may have, and after how long (ms) an item tells half as much."""

    liked: int = 20
    disliked: int = 10
    half_life_ms: float = 30 * 86_400_000.0


@dataclass(frozen=True, slots=True)
class Told:
    """An item and what the user's events on it weigh together, within -1 and 1."""

    item: EntityKey
    weight: float

    @property
    def signal(self) -> str:
        """The weight in words: scales of stars and actions differ, these do not."""
        return next(
            (words for least, words in _SIGNALS if self.weight >= least), _STRONGEST_DISLIKE
        )


def told_items(
    history: History, significance: SignificancePort, bounds: TasteBounds
) -> tuple[Told, ...]:
    """Return the items to tell a model about, liked first; on each side the most telling first.

    An item tells more the more its events weigh and the newer they are. Time counts from the
    user's newest event, so the choice is a pure function of the history.
    """
    weights: dict[str, float] = {}
    newest_ms: dict[str, int] = {}
    for event in history.counted:
        weights[event.item] = weights.get(event.item, 0.0) + significance.of(event)
        newest_ms[event.item] = event.at_ms
    clipped = {item: max(-1.0, min(1.0, weight)) for item, weight in weights.items()}

    def rank(item: str) -> tuple[float, int, str]:
        halves = (history.newest_ms - newest_ms[item]) / bounds.half_life_ms
        return -abs(clipped[item]) * 2.0**-halves, -newest_ms[item], item

    ranked = sorted(clipped, key=rank)
    liked = [item for item in ranked if clipped[item] >= _LEAST_WEIGHT][: bounds.liked]
    disliked = [item for item in ranked if clipped[item] <= -_LEAST_WEIGHT][: bounds.disliked]
    return tuple(Told(EntityKey.item(item), clipped[item]) for item in (*liked, *disliked))


def taste_fields(
    told: Sequence[Told], known: Mapping[EntityKey, Mapping[str, Json]]
) -> dict[str, Json] | None:
    """Return the fields of a request; None when no item has a title.

    `known` holds the content fields of items that have some.
    """
    liked: list[Json] = []
    disliked: list[Json] = []
    for one in told:
        entry = _entry(one, known.get(one.item, {}))
        if entry is not None:
            (liked if one.weight > 0 else disliked).append(entry)
    if not liked and not disliked:
        return None
    return {LIKED: liked, DISLIKED: disliked}


def _entry(told: Told, fields: Mapping[str, Json]) -> dict[str, Json] | None:
    entry = entry_of(told.item.id, fields)
    return None if entry is None else entry | {"signal": told.signal}
