"""The models of one run, checked."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.models.preflight import ModelFacts, ModelRef, preflight


@dataclass(frozen=True)
class Role:
    """One model of a run: what was found of it, and its config with folder and template settled."""

    facts: ModelFacts
    config: ModelConfig


@dataclass(frozen=True)
class Lineup:
    """The models of a run."""

    teacher: Role
    proxy: Role
    student: Role | None
    warnings: tuple[str, ...]

    def roles(self) -> list[Role]:
        return [role for role in (self.teacher, self.proxy, self.student) if role is not None]


def line_up(run: Run) -> Lineup:
    """Check all models of a run before any is loaded. Raises InputError naming the first bad field and its cure."""
    student = run.students.model if run.students else None
    references = [ModelRef("students.model", student.model, student.template)] if student else []
    found = preflight(_reference("teacher", run.teacher), _reference("proxy", run.proxy), references)
    configs = [run.teacher, run.proxy, *([student] if student else [])]
    roles = [Role(facts, settled(config, facts)) for facts, config in zip(found.models, configs, strict=True)]
    return Lineup(roles[0], roles[1], roles[2] if student else None, found.warnings)


def _reference(section: str, config: ModelConfig) -> ModelRef:
    return ModelRef(section, config.model, config.template)


def settled(config: ModelConfig, facts: ModelFacts) -> ModelConfig:
    """A config with the folder and the template that were found."""
    return config.model_copy(update={"model": str(facts.folder), "template": facts.template})
