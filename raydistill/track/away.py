"""MLflow may be away or fail at any time: what is said of it then, and that it stops nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from raydistill.track.secrets import masked_text, masked_uri

logger = logging.getLogger(__name__)


class Attempts:
    """Calls to the MLflow at one URI, each of which may fail. The first failure is warned of."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._warned = False

    def __call__(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Whether MLflow did it."""
        from raydistill.track.store import failures

        try:
            action(*arguments)
        except failures() as error:
            self.warn(error)
            return False
        return True

    def warn(self, error: Exception) -> None:
        """The first time only."""
        if not self._warned:
            logger.warning("%s; the run goes on, and all of it is in its folder", self.unusable(error))
        self._warned = True

    def unusable(self, error: Exception) -> str:
        """One line on what happened, without passwords, and what to do."""
        cause = _cause(error)
        why = masked_text(f"{type(cause).__name__}: {cause}", self._uri)[:300]
        return f"track.uri {masked_uri(self._uri)!r}: MLflow cannot be used there ({why}); start its server, or set track.uri=null"


def _cause(error: BaseException) -> BaseException:
    """The system's or the database's own error, where one set off `error`: it says in few words what MLflow says in many."""
    chain = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    return next((one for one in reversed(chain) if isinstance(one, OSError | sqlite3.Error)), error)
