"""The port of the token budget, as the knowledge lanes use it, and the budget without a limit."""

from typing import Protocol


class BudgetPort(Protocol):
    """How many tokens may be spent this hour, by all workers together. Cheap: no I/O."""

    def spend(self, tokens: int) -> None:
        """Count tokens of a call that was answered, for whatever reason it was made."""

    def is_spent(self) -> bool:
        """Whether no call about an entity may be made in this hour any more."""

    def is_spent_for_shared(self) -> bool:
        """Whether not even a call may be made that serves many items."""


class NoLimit:
    """The budget of a deployment that has set none."""

    def spend(self, tokens: int) -> None:
        """Count nothing."""

    def is_spent(self) -> bool:
        """Return False."""
        return False

    def is_spent_for_shared(self) -> bool:
        """Return False."""
        return False
