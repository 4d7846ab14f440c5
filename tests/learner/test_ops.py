"""A lock that a killed build left behind is told from one of a build that is running."""

import os
import time

import pytest

from raydistill.errors import InputError
from raydistill.learner.ops import refuse_stale_locks, stale_locks


def test_only_an_old_lock_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    refuse_stale_locks()
    lock = tmp_path / "py311_cpu" / "some_op" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    refuse_stale_locks()
    hours_ago = time.time() - 7200
    os.utime(lock, (hours_ago, hours_ago))
    assert stale_locks() == [lock]
    with pytest.raises(InputError, match=r"lock: left by .* delete this file"):
        refuse_stale_locks()
