"""Reading a prompt domain from its data file, which travels in the package."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files

from schemas.errors import ConfigurationError
from workers.knowledge.prompts import Domain, Factor

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
    less: a model that fills every factor to its bound must still reach the closing brace.
    Raises ConfigurationError.
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
    )
