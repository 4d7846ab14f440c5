"""DeepSpeed's compiled ops: a build that was killed is told from one that is running, because loading would wait for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from raydistill.errors import InputError

_STALE_SECONDS = 900.0
"""Several times what the slowest op took to build on two cores."""


def extensions_folder() -> Path:
    """Where torch keeps compiled extensions."""
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def stale_locks(older_than: float = _STALE_SECONDS) -> list[Path]:
    """Lock files of builds that began more than `older_than` seconds ago: their process was killed, and torch waits for ever."""
    now = time.time()
    return [lock for lock in sorted(extensions_folder().glob("**/lock")) if now - lock.stat().st_mtime > older_than]


def refuse_stale_locks() -> None:
    """Raise InputError where loading an op would hang on the lock of a build that was killed."""
    for lock in stale_locks():
        raise InputError(f"{lock}: left by a DeepSpeed op build that was killed, and loading the op would wait for it; delete this file")
