"""Reading a prompt domain from its data file, which travels in the package."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from schemas.entities import EntityKind
from schemas.errors import ConfigurationError
from workers.knowledge.prompts import Domain, Example, Factor

_SETTING = "FRESHET_KNOWLEDGE__DOMAIN"
_CHARS_PER_TOKEN = 3
"""On the low side for the languages the domains ask for, so a bounded answer always ends."""


def domain_names() -> tuple[str, ...]:
    """Return the domains that the package holds, sorted."""
    entries = (files(__package__) / "domains").iterdir()
    return tuple(
        sorted(
            entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")
        )
    )


def load_domain(
    name: str, *, factors: Sequence[str], max_factor_chars: int, max_tokens: int
) -> Domain:
    """Return the domain with the chosen factors, in their order.

    The bound on a factor is `max_factor_chars` or what `max_tokens` leaves for each, whichever is
    less: a model that fills every factor to its bound must still reach the closing brace. Examples
    that do not answer one of the factors, or not within the bound, are left out.
    What is asked of several items at once is kept to the chosen factors; where none of the
    domain's is chosen, it is the first. Raises ConfigurationError.
    """
    if name not in domain_names():
        raise ConfigurationError(_SETTING, f"{name!r} is none of {', '.join(domain_names())}")
    raw = tomllib.loads((files(__package__) / "domains" / f"{name}.toml").read_text("utf-8"))
    asks, tastes = raw["factors"], raw["tastes"]
    unknown = [factor for factor in factors if factor not in asks]
    if unknown or not factors or len(set(factors)) != len(factors):
        raise ConfigurationError(
            "FRESHET_KNOWLEDGE__FACTORS",
            f"{list(factors)} must be distinct and among {', '.join(asks)} (domain {name})",
        )
    bound = min(max_factor_chars, max_tokens * _CHARS_PER_TOKEN // len(factors))
    if bound <= 2 * raw["min_factor_chars"]:
        raise ConfigurationError(
            "FRESHET_KNOWLEDGE__MAX_TOKENS", f"{max_tokens} leaves {bound} characters a factor"
        )
    shared = _shared(name, raw)
    return Domain(
        name=name,
        noun=raw["noun"],
        expert=raw["expert"],
        language=raw["language"],
        factors=tuple(Factor(factor, asks[factor], tastes[factor]) for factor in factors),
        foreign_nouns=tuple(raw["foreign_nouns"]),
        min_factor_chars=raw["min_factor_chars"],
        max_factor_chars=bound,
        max_tokens=max_tokens,
        max_fields_bytes=raw["max_fields_bytes"],
        shared=tuple(factor for factor in factors if factor in shared) or (factors[0],),
        shared_chars=min(raw["shared_chars"], bound),
        examples=tuple(_examples(raw["examples"], factors, bound)),
    )


def _shared(name: str, raw: Mapping[str, Any]) -> Sequence[str]:
    """Return the factors of short answers, as the file has them; raises ConfigurationError."""
    shared: Sequence[str] = raw["shared"]
    asked = len(set(shared) & set(raw["factors"]))
    if not shared or asked != len(shared) or raw["shared_chars"] <= 2 * raw["min_factor_chars"]:
        raise ConfigurationError(
            _SETTING, f"domain {name}: `shared` must name factors, with room for a phrase each"
        )
    return shared


def _examples(
    rows: Sequence[Mapping[str, Any]], factors: Sequence[str], bound: int
) -> Iterator[Example]:
    """Yield the examples that answer the chosen factors within the bound on each."""
    for row in rows:
        texts = tuple(row["answer"].get(factor, "") for factor in factors)
        if all(0 < len(text) < bound for text in texts):
            yield Example(EntityKind(row["kind"]), row["fields"], texts)
