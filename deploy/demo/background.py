"""A thread that lives as long as a `with` block: what the demo's watchers and displays share."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from schemas.errors import FreshetError

_JOIN_SECONDS = 5.0


class Background(ABC):
    """To be derived from: `_run` returns soon after `_ended` is set.

    What ends it by itself is kept for `check`, which the demo's own thread calls.
    """

    def __init__(self, name: str) -> None:
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._failure: FreshetError | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def check(self) -> None:
        """Raise what ended the thread, if it ended by itself."""
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._woken.set()
        self._thread.join(_JOIN_SECONDS)

    @abstractmethod
    def _run(self) -> None:
        """Work until `_ended` is set."""

    def _guarded(self) -> None:
        try:
            self._run()
        except FreshetError as error:
            self._failure = error
