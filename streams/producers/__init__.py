"""The producer SDK: catalogue and behaviour events on Kafka, checked, keyed and acknowledged.

Needs only kafka-python, pydantic and orjson (extra `[producer]`), so an application can embed it.
What it refuses: events that a lane would dead-letter. What it never does: lose an event without
saying so; every event that `send` took is in a flush report, delivered or failed.
"""

from streams.delivery_ledger import FailedEvent, FlushReport
from streams.producers.behaviour_producer import BehaviourProducer
from streams.producers.catalog_producer import CatalogProducer
from streams.producers.event_producer import Delivery, UndeliveredEvents

__all__ = [
    "BehaviourProducer",
    "CatalogProducer",
    "Delivery",
    "FailedEvent",
    "FlushReport",
    "UndeliveredEvents",
]
