"""What travels about users as pydantic models: behaviour events and histories.

See `streams/contract_models.py`.
"""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from schemas.behaviour import BehaviourBatch, UserBehaviour, UserErased
from schemas.history import NEVER
from streams.contract_models import Milliseconds, Wire


class BehaviourEventValue(RootModel[UserBehaviour | UserErased | BehaviourBatch]):
    """What a user did, that a user is to be forgotten, or several such events in one record."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "user.behaviour",
                    "user_id": "7",
                    "event_id": "01J3ZD0QK5X4T6Q2B8N7M1C9VA",
                    "item_id": "42",
                    "action": "rate",
                    "value": 9.0,
                    "occurred_at": "2013-06-14T20:15:00Z",
                },
                {"type": "user.erased", "user_id": "8", "occurred_at": "2013-06-14T20:16:00Z"},
                {
                    "type": "user.behaviour.batch",
                    "events": [
                        {
                            "type": "user.behaviour",
                            "user_id": "7",
                            "event_id": "e1",
                            "item_id": "42",
                            "action": "view",
                            "occurred_at": "2013-06-14T20:17:00Z",
                        },
                        {
                            "type": "user.behaviour",
                            "user_id": "9",
                            "event_id": "e2",
                            "item_id": "43",
                            "action": "like",
                            "occurred_at": "2013-06-14T20:17:01Z",
                        },
                    ],
                },
            ]
        }
    )

    root: Annotated[
        UserBehaviour | UserErased | BehaviourBatch,
        Field(
            discriminator="type",
            description=(
                "The record's key is user:<id> of the (first) event. All users of a batch belong to"
                " the record's partition: Kafka's murmur2 of user:<id>."
            ),
        ),
    ]


class HistoryEventValue(Wire):
    """One interaction of a history."""

    at_ms: Milliseconds
    id: str = Field(pattern=r"^[0-9a-f]{16}$", description="blake2b-64 of the event's id")
    item: str = Field(description="Id of the item, without its kind")
    action: str
    value: float | None = Field(description="Of float32 precision; null where there is none")


class HistoryRecordValue(Wire):
    """A user's bounded history as of one revision; without events and with a mark: an erasure.

    Joins like a register: the newest of each event id, none at or before the erasure.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user": "user:7",
                    "rev": 1371240960123,
                    "erased_at_ms": -1,
                    "written_at_ms": 1371241000000,
                    "events": [
                        {
                            "at_ms": 1371240900000,
                            "id": "0123456789abcdef",
                            "item": "42",
                            "action": "rate",
                            "value": 9.0,
                        }
                    ],
                },
                {
                    "user": "user:8",
                    "rev": 1371240961000,
                    "erased_at_ms": 1371240960000,
                    "written_at_ms": 1371240961500,
                    "events": [],
                },
            ]
        }
    )

    user: str = Field(pattern=r"^user:.+$", description="As in the record's key")
    rev: int = Field(ge=1, description="Grows with every change; also in the user's vectors")
    erased_at_ms: int = Field(
        ge=NEVER, description="Nothing at or before this time is kept; -1: never erased"
    )
    written_at_ms: Milliseconds
    events: list[HistoryEventValue] = Field(description="Oldest first")
