"""The errors that decide behaviour, for every folder.

    FreshetError
    ├── Transient            retry with backoff; the partition holds, the dependency's circuit opens
    ├── Permanent            dead letter; `reason` is a stable code (schemas.reasons)
    │   └── InvalidInput     the record itself breaks a contract; counts towards the flood guard
    └── ConfigurationError   the process cannot start as configured; says which setting

Anything else that escapes a handler is a bug and crashes the process.
"""

from schemas.reasons import Reason


class FreshetError(Exception):
    """Root of all errors that Freshet raises on purpose."""


class Transient(FreshetError):
    """A dependency did not answer as it should; the same call may work later.

    `dependency` names it ("redis", "kafka", "vllm"); `retry_after_seconds` is the dependency's
    own wish, where it stated one.
    """

    def __init__(
        self, dependency: str, detail: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(dependency, detail)
        self.dependency = dependency
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.dependency}: {self.detail}"


class Permanent(FreshetError):
    """No retry will help: the record goes to the dead letters under `reason`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class InvalidInput(Permanent):
    """A record, file or argument that breaks a contract."""


class ConfigurationError(FreshetError):
    """A setting, topic or space is wrong; `setting` names it."""

    def __init__(self, setting: str, detail: str) -> None:
        super().__init__(setting, detail)
        self.setting = setting
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.setting}: {self.detail}"
