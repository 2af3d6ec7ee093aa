"""The name of every key Freshet keeps in Redis.

Keys of one entity carry it in braces, so a cluster keeps them in one hash slot and a script may
change them together. Needs nothing but `schemas.entities`: rankers import it.
"""

from schemas.entities import EntityKey, EntityKind

_GLOB_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\*?[]^-"})


class Keys:
    """Key names under one prefix; raises ValueError when the prefix would break hash tags."""

    def __init__(self, prefix: str = "") -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError(f"key prefix {prefix!r} holds braces: they mark the hash slot")
        self.prefix = prefix

    def doc(self, key: EntityKey) -> str:
        """Return the key of an entity's document."""
        return f"{self.prefix}doc:{{{key}}}"

    def vec(self, space: str, key: EntityKey) -> str:
        """Return the key of an entity's vector record in a space."""
        return f"{self.prefix}vec:{space}:{{{key}}}"

    def vec_affixes(self, space: str) -> tuple[str, str]:
        """Return what stands before and after the entity in a vector key: for whole batches."""
        return f"{self.prefix}vec:{space}:{{", "}"

    def seen(self, key: EntityKey) -> str:
        """Return the key of what the items lane last saw of an entity."""
        return f"{self.prefix}seen:{{{key}}}"

    def seen_affixes(self) -> tuple[str, str]:
        """Return what stands before and after the entity in a seen key."""
        return f"{self.prefix}seen:{{", "}"

    def history(self, user: EntityKey) -> str:
        """Return the key of a user's history."""
        return f"{self.prefix}history:{{{user}}}"

    def gate(self, user: EntityKey) -> str:
        """Return the key of what the gate of preference knowledge remembers of a user."""
        return f"{self.prefix}gate:{{{user}}}"

    def awaiting(self, item: EntityKey) -> str:
        """Return the key of the users whose history names an item that has no vector yet."""
        return f"{self.prefix}awaiting:{{{item}}}"

    def histories_dirty(self, partition: int) -> str:
        """Return the key of a partition's users changed since their histories were published."""
        return f"{self.prefix}histories:dirty:{{{partition}}}"

    def histories_flushing(self, partition: int) -> str:
        """Return the key of a partition's users whose histories are being published."""
        return f"{self.prefix}histories:flushing:{{{partition}}}"

    def gate_calls(self, day: str) -> str:
        """Return the key of the count of calls that the gate granted on a day (yyyymmdd)."""
        return f"{self.prefix}gate:calls:{day}"

    def budget_tokens(self, hour: str) -> str:
        """Return the key of the count of tokens that were spent in an hour (yyyymmddhh)."""
        return f"{self.prefix}budget:tokens:{hour}"

    def trace(self, key: EntityKey) -> str:
        """Return the key of an entity's last outcomes."""
        return f"{self.prefix}trace:{{{key}}}"

    def checkpoint(self, group: str) -> str:
        """Return the key of a consumer group's settled offsets."""
        return f"{self.prefix}checkpoint:{group}"

    def view(self) -> str:
        """Return the key of the marker that says: the view in this Redis is whole."""
        return f"{self.prefix}view"

    def view_partitions(self) -> str:
        """Return the key of the hash that says in which Redis each partition was verified."""
        return f"{self.prefix}view:partitions"

    def alias(self, kind: EntityKind) -> str:
        """Return the key that names the active space of a kind of entity."""
        return f"{self.prefix}alias:{kind.value}"

    def spaces(self) -> str:
        """Return the key of the hash of all space records, by space name."""
        return f"{self.prefix}spaces"

    def groups(self) -> str:
        """Return the key of the hash of the groups in use, by kind of entity."""
        return f"{self.prefix}groups"

    def paused(self, lane: str) -> str:
        """Return the key of a lane's pause flag."""
        return f"{self.prefix}paused:{lane}"

    def docs_pattern(self) -> str:
        """Return the glob that matches every document key."""
        return f"{self.prefix.translate(_GLOB_SPECIAL)}doc:{{*}}"

    def histories_pattern(self) -> str:
        """Return the glob that matches every history's key."""
        return f"{self.prefix.translate(_GLOB_SPECIAL)}history:{{*}}"

    def vecs_pattern(self, space: str, kind: EntityKind) -> str:
        """Return the glob that matches every vector key of one kind in a space."""
        return f"{self.prefix.translate(_GLOB_SPECIAL)}vec:{space}:{{{kind.value}:*}}"


def tagged(name: bytes) -> str:
    """Return the entity that a key of one entity carries in braces."""
    return name[name.rindex(b"{") + 1 : -1].decode()
