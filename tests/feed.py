"""A seeded catalogue feed with everything that a real one has.

Edits back and forth, removals and items that return, repeated events, events out of order,
counters that mean nothing, and one item in a hurry.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.events import ContentPolicy, ItemFields, ItemRemoved, ItemUpserted, entity_of
from schemas.fingerprints import content_fingerprint
from streams.lanes.items import ItemChange

TITLES = ("Amber Road", "Basalt Harbour", "Cobalt Field", "Damask Hill")
HOT_ITEM = "i000"


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event; `title` None means removed. Equal versions of one item are equal events."""

    item: str
    version: int
    title: str | None
    votes: int

    def to_event(self) -> ItemUpserted | ItemRemoved:
        """Return the event as producers send it."""
        if self.title is None:
            return ItemRemoved(item_id=self.item, version=self.version)
        fields = ItemFields(title=self.title, genres=["Drama"], votes=self.votes)
        return ItemUpserted(item_id=self.item, version=self.version, item=fields)


def make_feed(seed: int, *, events: int = 5_000, items: int = 150) -> list[FeedEvent]:
    """Return events in the order they arrive."""
    chance = random.Random(seed)
    versions: dict[str, int] = {}
    titles: dict[str, str | None] = {}
    feed: list[FeedEvent] = []
    while len(feed) < events:
        if feed and chance.random() < 0.1:
            feed.append(feed[-chance.randint(1, min(50, len(feed)))])
            continue
        item = HOT_ITEM if chance.random() < 0.05 else f"i{chance.randrange(items):03d}"
        versions[item] = versions.get(item, 0) + chance.randint(1, 3)
        kind = chance.random()
        if kind < 0.07 and titles.get(item) is not None:
            titles[item] = None
        elif kind < 0.7 or titles.get(item) is None:
            titles[item] = f"{chance.choice(TITLES)} {item}"
        feed.append(FeedEvent(item, versions[item], titles[item], chance.randrange(10_000)))
    for index in range(len(feed) - 1):
        if chance.random() < 0.1:
            other = min(len(feed) - 1, index + chance.randint(1, 20))
            feed[index], feed[other] = feed[other], feed[index]
    return feed


def newest_versions(events: Iterable[FeedEvent]) -> dict[str, int]:
    """Return the greatest version of each item."""
    newest: dict[str, int] = {}
    for event in events:
        newest[event.item] = max(newest.get(event.item, 0), event.version)
    return newest


def changes_by_item(
    events: Iterable[FeedEvent], policy: ContentPolicy
) -> dict[str, list[ItemChange]]:
    """Return what the items lane makes of the events, by item."""
    changes: dict[str, list[ItemChange]] = {}
    for feed_event in events:
        event = feed_event.to_event()
        if isinstance(event, ItemRemoved):
            change = ItemChange(entity_of(event), event.version, None, "", 0)
        else:
            fields = policy.content_of(event)
            fingerprint = content_fingerprint(fields)
            change = ItemChange(entity_of(event), event.version, fields, fingerprint, 0)
        changes.setdefault(feed_event.item, []).append(change)
    return changes
