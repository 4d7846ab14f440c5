"""MLflow as the driver of a sweep sees it: the sweep's own run, of kind `sweep`, and its best teachers in the model registry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.track import TrackConfig
from raydistill.files import write_whole
from raydistill.report.scores import Json
from raydistill.track.away import Attempts
from raydistill.track.curves import curve_points
from raydistill.track.marker import RUN_ID, known_run_id
from raydistill.track.tracker import Status

if TYPE_CHECKING:
    from raydistill.track.store import Store

LONGEST_CARD = 5000
"""Characters; MLflow's databases hold no longer description."""

logger = logging.getLogger(__name__)


class SweepRecord:
    """Records one sweep; does nothing where `config.uri` is None.

    A server that is away is warned of once and stops nothing: each call that finds it back makes up for what the ones before could not do.
    """

    def __init__(self, config: TrackConfig) -> None:
        self._config = config
        self._attempt = Attempts(config.uri or "")
        self._store: Store | None = None
        self._run_id: str | None = None
        self._missed = False

    def start(self, name: str, params: Mapping[str, str], folder: Path) -> str | None:
        """Open the sweep's run, or go on with the one that its folder knows of; `run_id`, which may be None here and not later."""
        self._name, self._params, self._folder = name, params, folder
        if self._config.uri is not None:
            self._try(self._open, self._config.uri)
        if self._run_id:
            write_whole(folder / RUN_ID, self._run_id)
        return self._run_id

    @property
    def run_id(self) -> str | None:
        """MLflow's run of the sweep, under which those of its trials are nested; None where there is none, or none yet."""
        return self._run_id

    def log(self, result: Json, files: Sequence[Path]) -> bool:
        """The curves of the trials that are done, and files; whether MLflow has them now. Once more, it adds what is new.

        `result` is the content of sweep.json.
        """
        if self._run_id is None:
            self._missed = False  # if it is there now, all is made up for
            self.start(self._name, self._params, self._folder)
        return bool(self._store and self._run_id) and self._try(self._send, self._store, self._run_id, result, files)

    def register(self, trial: Json, model: str, card: str) -> None:
        """The teacher of a trial as a new version of a registered model, unless it is one already. `trial` is its entry in sweep.json.

        The version points to the `teacher` among the artefacts of the trial's run. A teacher that was too large to be sent stays where
        it is, and the version points there, if MLflow has it so; else it is left out with a warning.
        """
        if self._store and self._run_id:
            self._try(self._register, self._store, self._run_id, trial, model, card)

    def end(self, status: Status) -> bool:
        """Close the run, and those of trials that were killed before they could close their own; whether MLflow has it all."""
        return bool(self._store and self._run_id) and self._try(self._close, self._store, self._run_id, status) and not self._missed

    def _try(self, action: Callable[..., None], *arguments: Any) -> bool:
        done = self._attempt(action, *arguments)
        self._missed = self._missed or not done
        return done

    def _open(self, uri: str) -> None:
        from raydistill.track import store

        store.prepare()
        self._store = store.Store(uri, self._config.experiment)
        known = known_run_id(self._folder)
        if known and self._store.reopen(known):
            self._run_id = known
        else:
            self._run_id = self._store.open(self._name, {"raydistill.kind": "sweep", "raydistill.folder": str(self._folder)}, {})
        self._store.log_params(self._run_id, self._params)

    def _send(self, store: Store, run_id: str, result: Json, files: Sequence[Path]) -> None:
        store.log_params(run_id, self._params)
        store.log_new_metrics(run_id, curve_points(result))
        for file in files:
            if file.exists():
                store.log_path(run_id, file)

    def _register(self, store: Store, run_id: str, trial: Json, model: str, card: str) -> None:
        found = store.find({"raydistill.sweep": run_id, "raydistill.trial": trial["id"], "raydistill.kind": "calibration"})
        if found is None:
            logger.warning("track.uri: MLflow has no run of trial %s, so its teacher is not registered as %r", trial["id"], model)
            return
        folder = self._folder / "trials" / trial["id"] / "teacher"
        source = store.artefact(found, "teacher") or folder.resolve().as_uri()
        if not store.register(model, found, source, _cut(card), _tags(run_id, trial)):
            logger.warning(
                "track.uri: MLflow takes no model from %s, where a teacher too large to be sent lies; it is not registered", folder
            )

    def _close(self, store: Store, run_id: str, status: Status) -> None:
        for trial in store.open_children(run_id):
            store.close_tree(trial, "KILLED")
        store.close(run_id, status)


def _tags(run_id: str, trial: Json) -> dict[str, str]:
    """Of a model's version: what it is chosen by."""
    values = {"eta": f"{trial['eta']:g}", "trial": trial["id"], "sweep": run_id}
    if students := trial["report"]["students"]:
        values["student"] = f"{students[0]['calibrated']['sampled']['mean']:.4f}"
        if students[0]["ratio"] is not None:
            values["ratio"] = f"{students[0]['ratio']:.4f}"
    return {f"raydistill.{name}": value for name, value in values.items()}


def _cut(card: str) -> str:
    return card if len(card) <= LONGEST_CARD else f"{card[: LONGEST_CARD - 1]}…"
