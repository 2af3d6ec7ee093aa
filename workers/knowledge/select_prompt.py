"""Which prompt an entity gets: chosen by its kind alone, whatever the request is called. Pure."""

from collections.abc import Mapping

from schemas.entities import EntityKey, EntityKind
from schemas.errors import Permanent
from schemas.fingerprints import Json
from schemas.reasons import Reason
from workers.knowledge.prompts import Domain, Prompt, item_prompt, prompt_id
from workers.knowledge.user_prompt import user_prompt, user_prompt_id

PROMPTED_KINDS = (EntityKind.ITEM, EntityKind.USER)
"""The kinds of entity that a prompt exists for."""


def prompt_about(domain: Domain, entity: EntityKey, fields: Mapping[str, Json]) -> Prompt:
    """Return the prompt about an entity; raises Permanent(refused), InvalidInput(empty_title)."""
    match entity.kind:
        case EntityKind.ITEM:
            return item_prompt(domain, entity, fields)
        case EntityKind.USER:
            return user_prompt(domain, fields)
        case EntityKind.GROUP:
            raise _no_prompt(entity.kind)


def prompt_id_of(domain: Domain, kind: EntityKind) -> str:
    """Return the id that prompts about this kind of entity carry; raises Permanent(refused)."""
    match kind:
        case EntityKind.ITEM:
            return prompt_id(domain)
        case EntityKind.USER:
            return user_prompt_id(domain)
        case EntityKind.GROUP:
            raise _no_prompt(kind)


def _no_prompt(kind: EntityKind) -> Permanent:
    return Permanent(Reason.REFUSED, f"there is no prompt for a {kind.value}")
