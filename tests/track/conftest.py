"""A real MLflow store on SQLite and a real server of another one, each made once: that takes some seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.track.server import free_port, serving

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def client(uri: str) -> MlflowClient:
    """For reading what a tracker wrote, past the tracker."""
    from raydistill.track.store import Store, prepare

    prepare()
    from mlflow.tracking import MlflowClient

    Store(uri, "made-first")
    return MlflowClient(tracking_uri=uri)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    with serving(tmp_path_factory.mktemp("server"), free_port()) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with all that is kept of it."""
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").write_bytes(b"weights")
    for name in ("report.html", "report.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    return tmp_path
