"""What binds the record of a run to that of the sweep it is a trial of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydistill.track.secrets import masked_uri


@dataclass(frozen=True)
class SweepLink:
    """A trial's place in its sweep."""

    run_id: str | None
    """MLflow's run of the sweep, under which the trial's is nested; None where there is none, or none yet."""
    trial: str
    """The trial's id in sweep.json."""
    overrides: Mapping[str, Any]
    """Field and value, as in sweep.json."""

    @property
    def tags(self) -> dict[str, str]:
        """Of the trial's run and of all that is nested in it: one search finds them."""
        tags = {"raydistill.trial": self.trial}
        return tags if self.run_id is None else tags | {"raydistill.sweep": self.run_id}

    @property
    def params(self) -> dict[str, str]:
        """What the sweep crosses with eta, which students have as a param of its own."""
        return {field: masked_uri(str(value)) for field, value in self.overrides.items() if field != "knob.eta"}
