"""Where runs are recorded."""

from __future__ import annotations

from raydistill.config.base import Strict


class TrackConfig(Strict):
    """MLflow: one run for each run of the main job, nested runs for its students."""

    uri: str | None = "sqlite:///mlflow.db"
    """MLflow tracking URI; null records nothing beside the run's folder."""
    experiment: str = "raydistill"
    """MLflow experiment."""
