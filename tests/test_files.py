"""Files and folders are whole or absent, also where the disk is full."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raydistill.files import whole_folder, write_whole


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow over `room` bytes: a write beyond fails with an OSError, as it does where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_whole(path, "old")
    with full_disk(room=1000), pytest.raises(OSError, match="too large"):
        write_whole(path, "x" * 10_000)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "student"
    with full_disk(room=1000), pytest.raises(OSError, match="too large"), whole_folder(target) as partial:
        (partial / "model.safetensors").write_bytes(b"x" * 10_000)
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target) as partial:
        (partial / "small").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["student", "small"]
