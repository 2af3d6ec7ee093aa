"""Which prompt an entity gets: chosen by its kind alone, whatever the request is called. Pure."""

from collections.abc import Mapping

from schemas.entities import EntityKey, EntityKind
from schemas.fingerprints import Json
from workers.knowledge.group_prompt import group_prompt, group_prompt_id
from workers.knowledge.prompts import Domain, Prompt, item_prompt, prompt_id
from workers.knowledge.user_prompt import user_prompt, user_prompt_id

PROMPTED_KINDS = (EntityKind.ITEM, EntityKind.USER, EntityKind.GROUP)
"""The kinds of entity that a prompt exists for."""


def prompt_about(domain: Domain, entity: EntityKey, fields: Mapping[str, Json]) -> Prompt:
    """Return the prompt about an entity; raises InvalidInput(empty_title)."""
    match entity.kind:
        case EntityKind.ITEM:
            return item_prompt(domain, entity, fields)
        case EntityKind.USER:
            return user_prompt(domain, fields)
        case EntityKind.GROUP:
            return group_prompt(domain, fields)


def prompt_id_of(domain: Domain, kind: EntityKind) -> str:
    """Return the id that prompts about this kind of entity carry."""
    match kind:
        case EntityKind.ITEM:
            return prompt_id(domain)
        case EntityKind.USER:
            return user_prompt_id(domain)
        case EntityKind.GROUP:
            return group_prompt_id(domain)
